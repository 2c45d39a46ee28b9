//! Two services that want the same.

use crate::ini::Ini;
use crate::service::Home;

#[tokio::test]
async fn a_second_service_on_the_same_port_says_so_and_leaves_the_first_alone() {
    let home = Home::new(&Ini::quick());
    let mut first = home.start().await;
    let port = first.addr().port();
    let other = Home::new(&Ini::quick().with("server", "port", port));
    let ran = other.run(&["serve"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(&format!("127.0.0.1:{port} is in use")), "{ran:?}");
    assert!(ran.stderr.contains("[server] port"), "{ran:?}");
    assert!(!other.path("data/smartproxy.db").exists(), "nothing was begun");
    assert!(first.is_running());
    assert_eq!(first.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_second_service_on_the_same_database_says_so_and_leaves_the_first_alone() {
    let home = Home::new(&Ini::quick());
    let mut first = home.start().await;
    let ran = home.run(&["serve"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("smartproxy.db") || ran.stderr.contains("the backup file"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("process {}", first.id())), "{ran:?}");
    assert!(first.is_running());
    first.report("default", "http://127.0.0.1:9", 200).await;
    assert_eq!(first.stop().await, 0);
}

#[tokio::test]
async fn a_service_whose_predecessor_was_killed_starts_at_once() {
    let home = Home::new(&Ini::quick());
    home.start().await.kill().await;
    let files = std::fs::read_dir(home.path("data")).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.contains(".pid")), "{names:?}");
    let ran = home.run(&["status"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(home.start().await.stop().await, 0);
}
