//! The disk of the database is full: tables cannot grow, then not even the log of the server. Clients never notice, the
//! operator is told what to do, and everything is written once when there is space again.

use std::fmt::Write as _;
use std::io::ErrorKind;

use smartproxy_testkit::PostgresServer;

use crate::outages::{AT_ONCE, Load, is_ready, says_store};
use crate::postgres::Setup;
use crate::service::{Home, Service, until};

/// Known proxies, each reported on: what is to be saved needs ever more space.
const KNOWN: u32 = 5_000;

/// `count` proxies of the network 127.`net`.0.0, at which nobody listens.
fn list(net: u8, count: u32) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "http://127.{net}.{}.{}:9", number >> 8, number & 0xff);
        text
    })
}

/// A service that knows the town's proxies and [`KNOWN`] others, and all of their URLs.
async fn known(setup: &Setup) -> (Home, Service, Vec<String>) {
    let home = Home::new(&setup.ini());
    let others = list(1, KNOWN);
    home.write("list.txt", &others);
    let ran = home.run(&["import", "list.txt"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let service = home.start().await;
    service.wait_for_live(setup.town.upstreams.len()).await;
    let urls = others.lines().map(str::to_owned).chain(setup.town.urls()).collect();
    (home, service, urls)
}

/// Ends the load and the service: clients never waited, and the sums are what they were told.
async fn all_is_written_once(setup: &Setup, service: Service, load: Load) {
    until("it is ready again", async || is_ready(&service).await).await;
    load.goes_on(100).await;
    let (reports, slowest) = load.end().await;
    assert!(slowest < AT_ONCE, "a client waited for {slowest:?}");
    let log = service.log();
    assert_eq!(service.stop().await, 0);
    assert_eq!(setup.counted(), (reports, 0));
    let learned = setup.sql("SELECT sum(successes), sum(failures) FROM smartproxy_evidence");
    assert_eq!(learned, format!("{reports}|0"));
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_full_disk_is_an_outage_that_says_so_and_everything_is_written_once_when_there_is_space() {
    let server = match PostgresServer::start_on_small_disk(160) {
        // The test below needs no right.
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("{error}; files that cannot grow take its place");
            return files_that_cannot_grow().await;
        }
        server => server.unwrap(),
    };
    let setup = Setup::with(server, 2);
    let (home, service, urls) = known(&setup).await;
    let load = Load::on(&service, &urls);
    load.goes_on(200).await;

    // Tables cannot grow.
    setup.server.fill_disk().unwrap();
    let reason = "the disk of the database is full: free some space; what is learned waits in memory";
    until("the reason names the disk", async || {
        let reply = service.get("/ready").await;
        reply.status == 503 && reply.json()["reasons"]["store"] == reason
    })
    .await;
    assert!(service.log().contains("is full: free some space"));
    let reply = service.get("/api/overview").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    home.write("more.txt", list(2, 20_000));
    let ran = home.run(&["import", "more.txt"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("is full: free some space"), "{ran:?}");
    assert_eq!(setup.sql("SELECT count(*) FROM proxies WHERE ip LIKE '127.2.%'"), "0", "half-applied");
    load.goes_on(200).await;
    assert_eq!(service.get("/live").await.status, 200);

    // The log of the server cannot grow either: it gives up.
    until("the server panics", async || {
        let _ = setup.server.execute(&setup.database, "SELECT txid_current(); SELECT pg_switch_wal()");
        setup.server.read_log().unwrap().contains("PANIC")
    })
    .await;
    until("it says so", async || says_store(&service).await).await;
    load.goes_on(200).await;

    setup.server.free_disk().unwrap();
    setup.server.start_again().unwrap();
    all_is_written_once(&setup, service, load).await;
    let ran = home.run(&["import", "more.txt"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("20000 proxies, 20000 of them new"), "{ran:?}");
    let versions = || setup.sql("SELECT md5(string_agg(id || ' ' || xmin, ',' ORDER BY id)) FROM proxies");
    let before = versions();
    let ran = home.run(&["import", "more.txt"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("20000 proxies, 0 of them new"), "{ran:?}");
    assert_eq!(versions(), before, "a long list of known proxies writes no row");
}

#[tokio::test]
async fn files_that_may_not_grow_are_an_outage_and_everything_is_written_once_when_they_may() {
    files_that_cannot_grow().await;
}

async fn files_that_cannot_grow() {
    let setup = Setup::new(2);
    let (_home, service, urls) = known(&setup).await;
    let load = Load::on(&service, &urls);
    load.goes_on(200).await;
    // Not even its log, which is larger: it gives up at once.
    setup.server.limit_files(Some(64 * 1024)).unwrap();
    until("it says so", async || says_store(&service).await).await;
    load.goes_on(300).await;
    assert_eq!(service.get("/live").await.status, 200);
    assert!(setup.server.read_log().unwrap().contains("File too large"));
    // A server that has ended anyway needs none.
    let _ = setup.server.limit_files(None);
    setup.server.start_again().unwrap();
    all_is_written_once(&setup, service, load).await;
}
