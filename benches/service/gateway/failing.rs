//! Half of the upstreams turn bad while requests flow, each in another way.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use smartproxy_core::Protocol;
use smartproxy_testkit::upstream::Ending;
use smartproxy_testkit::{Mood, Target, TargetSpec, Upstream, UpstreamSpec};

use super::load::{self, Seen, Work};
use super::{Gateway, Helper};
use crate::process::Outcome;

const COUNT: usize = 40;
const CLIENTS: usize = 16;
const TIME: Duration = Duration::from_secs(8);

/// Prints the upstreams' URLs and serves until standard input is closed. A line on it turns every second one bad.
pub(crate) fn serve() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let target = Target::start(TargetSpec::default())?;
        let mut upstreams = Vec::new();
        for number in 0..COUNT {
            upstreams.push(Upstream::start(UpstreamSpec::new(Protocol::Http).seeded(number as u64))?);
        }
        let urls = upstreams.iter().map(|upstream| upstream.proxy_addr(Protocol::Http).url());
        println!("failing.test:{} {}", target.addr().port(), urls.collect::<Vec<_>>().join(" "));
        tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            while std::io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {
                for (number, upstream) in upstreams.iter().enumerate().filter(|(number, _)| number % 2 == 1) {
                    upstream.set_mood(bad(number / 2));
                }
            }
        })
        .await?;
        std::process::exit(0);
    })
}

/// Ten ways to fail.
fn bad(number: usize) -> Mood {
    match number % 10 {
        0 => Mood::dead(),
        1 => Mood::never_accepts(),
        2 => Mood::black_hole(),
        3 => Mood::garbage(),
        4 => Mood::refusing(503),
        5 => Mood::refusing(407),
        6 => Mood::cut_off(0, Ending::Close),
        7 => Mood::cut_off(0, Ending::Reset),
        8 => Mood::cut_off(20, Ending::Reset),
        _ => Mood::drip(Duration::from_secs(5)),
    }
}

pub(super) async fn run() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut helper = Helper::start("gateway-failing")?;
    let line = helper.first_line.clone();
    let (target, urls) = line.split_once(' ').ok_or("no upstreams")?;
    let urls: Vec<String> = urls.split(' ').map(str::to_owned).collect();
    let gateway = Gateway::start(folder.path(), &urls, &format!("http://{target}/get"))?;
    println!("\n== gateway: every second of {COUNT} upstreams turns bad, in ten ways");
    println!("{:<34}{:>10}{:>10}{:>10}{:>10}", "", "exchanges", "success", "median", "p99");
    let mut healthy = [0.0; 2];
    for (at, work) in [Work::Request, Work::Tunnel].into_iter().enumerate() {
        let seen = load::run(gateway.address, work, CLIENTS, TIME / 2, target).await?;
        show("all well", work, &seen);
        healthy[at] = seen.quantile_ms(0.99);
    }
    writeln!(helper.stdin.as_mut().ok_or("no input")?, "bad")?;
    for (at, work) in [Work::Request, Work::Tunnel].into_iter().enumerate() {
        let seen = load::run(gateway.address, work, CLIENTS, TIME, target).await?;
        show("half bad", work, &seen);
        let limit = 2.0 * healthy[at] + 10_000.0;
        println!(
            "  goals: success 99.5%, p99 under {limit:.0} ms (twice the healthy one and a connect timeout)"
        );
    }
    Ok(())
}

fn show(what: &str, work: Work, seen: &Seen) {
    let (median, p99) = (seen.quantile_ms(0.5), seen.quantile_ms(0.99));
    let name = format!("  {what}, {work:?}");
    println!("{name:<34}{:>10}{:>9.2}%{median:>7.1} ms{p99:>7.1} ms", seen.count(), seen.success() * 100.0);
    if let Some(failure) = &seen.failure {
        println!("    the first failure: {}", failure.escape_debug());
    }
}
