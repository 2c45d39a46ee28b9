//! `smartproxy demo`.

use std::time::Duration;

use tokio::time::timeout;

use crate::service::Home;

/// The shares of a cell such as `83 % of 97 %`, in percent.
fn shares(line: &str) -> Vec<(f64, f64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words
        .windows(5)
        .filter(|window| window[1] == "%" && window[2] == "of" && window[4] == "%")
        .map(|window| (window[0].parse().unwrap(), window[3].parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn the_demo_shows_a_pool_that_learns_and_leaves_no_trace() {
    let home = Home::empty();
    let mut command = home.command(&["demo", "--seconds", "21", "--every", "5", "--port", "0"]);
    command.env("TMPDIR", home.path(""));
    let output = timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<(f64, f64)>> = said.lines().map(shares).filter(|shares| !shares.is_empty()).collect();
    assert!(rows.len() >= 3, "{said}");
    assert!(rows.iter().all(|row| row.len() == 3), "three sites: {said}");
    // The last two rows together: of one alone, chance is a large part.
    let late = || rows[rows.len() - 2..].iter().flatten();
    let (succeeded, best): (f64, f64) = (late().map(|cell| cell.0).sum(), late().map(|cell| cell.1).sum());
    assert!(succeeded >= 0.7 * best, "{:.0} % of the best: {said}", 100.0 * succeeded / best);
    let left: Vec<_> = std::fs::read_dir(home.path("")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
