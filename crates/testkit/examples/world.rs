//! Starts a world on loopback, says where everything is, and runs it until Ctrl-C.
//!
//! `cargo run -p smartproxy-testkit --example world -- [PROXIES] [SEED]`
//!
//! The data is on stdout, one `word value ...` per line, so that scripts can read it:
//!
//! ```text
//! feed   NAME URL DEFAULT_PROTOCOL FORMAT
//! echo   HTTP_URL HTTPS_URL
//! site   NAME HTTP_URL HTTPS_URL
//! proxy  URL CLASS up|down ANONYMITY DELAY_MS FAULT
//! ready
//! ```

use std::error::Error;
use std::time::Duration;

use smartproxy_testkit::{World, WorldSpec};

/// How often the world moves on.
const STEP: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut spec = WorldSpec::default();
    if let Some(count) = args.next() {
        spec.proxies = count.parse().map_err(|_| format!("PROXIES: not a number: {count:?}"))?;
    }
    if let Some(seed) = args.next() {
        spec.seed = seed.parse().map_err(|_| format!("SEED: not a number: {seed:?}"))?;
    }
    let world = World::start(&spec)?;
    for feed in world.feeds() {
        println!("feed   {} {} {} {:?}", feed.name, feed.url, feed.default_protocol, feed.format);
    }
    println!("echo   {} {}", world.echo().url("/get"), world.echo().https_url("/get"));
    for site in world.sites() {
        println!(
            "site   {} {} {}",
            site.name(),
            site.target().url("/html"),
            site.target().https_url("/html")
        );
    }
    for proxy in world.proxies() {
        let state = if proxy.works { "up" } else { "down" };
        let (url, delay_ms) = (proxy.addr.url(), proxy.delay.as_millis());
        let anonymity = proxy.anonymity.as_str();
        println!("proxy  {url} {:?} {state} {anonymity} {delay_ms} {:?}", proxy.class, proxy.mood.fault);
    }
    println!("ready");
    world.drive(STEP);
    tokio::signal::ctrl_c().await?;
    Ok(())
}
