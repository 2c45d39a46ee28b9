//! The private PostgreSQL server.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, panic};

use smartproxy_testkit::PostgresServer;

#[test]
fn a_server_outlives_a_kill_with_what_it_had_committed() {
    let server = PostgresServer::start().unwrap();
    let database = server.create_database().unwrap();
    server.execute(&database, "CREATE TABLE t (n INT); INSERT INTO t VALUES (1), (2)").unwrap();
    server.kill().unwrap();
    assert!(server.execute(&database, "SELECT 1").is_err());
    server.start_again().unwrap();
    assert_eq!(server.execute(&database, "SELECT n FROM t ORDER BY n").unwrap(), "1\n2");
    server.stop().unwrap();
    server.start_again().unwrap();
    assert_eq!(server.execute(&database, "SELECT count(*), 'x' FROM t").unwrap(), "2|x");
    let error = server.execute(&database, "SELECT * FROM missing").unwrap_err().to_string();
    assert!(error.contains("\"missing\" does not exist"), "{error}");
}

#[test]
fn a_password_is_asked_for_only_over_tcp() {
    let server = PostgresServer::start().unwrap();
    server.require_password("alice", "it's").unwrap();
    assert_eq!(server.execute("postgres", "SELECT 1").unwrap(), "1");
}

#[test]
fn a_dropped_server_leaves_nothing_even_when_it_is_paused_or_its_test_panics() {
    let (directory, port) = panic::catch_unwind(|| {
        let server = PostgresServer::start().unwrap();
        server.pause().unwrap();
        let left = (server.directory().to_owned(), server.port());
        panic::resume_unwind(Box::new(left));
    })
    .map_err(|left| *left.downcast::<(PathBuf, u16)>().unwrap())
    .unwrap_err();
    assert!(!directory.exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn the_server_of_a_process_that_was_killed_is_gone_soon() {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "postgres::child_that_is_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut directory = None;
    for line in
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap())).map_while(Result::ok)
    {
        if let Some((_, path)) = line.split_once("cluster in ") {
            directory = Some(PathBuf::from(path));
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let directory = directory.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while directory.exists() {
        assert!(Instant::now() < deadline, "{} is still there", directory.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "not a test: the process that the test above kills"]
fn child_that_is_killed() {
    let server = PostgresServer::shared().unwrap();
    println!("cluster in {}", server.directory().display());
    loop {
        std::thread::park();
    }
}
