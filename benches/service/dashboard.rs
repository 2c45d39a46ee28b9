//! What the dashboard asks for, with 100,000 proxies and a year of statistics of 50 pools, on both stores; and, where
//! the tests have installed a browser driver, what it costs in Chromium.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use smartproxy_core::Timestamp;
use smartproxy_core::saved::MinuteCount;
use smartproxy_store::{Batch, PostgresOptions, PostgresStore, SqliteStore, Store};
use smartproxy_testkit::PostgresServer;

use super::process::{Client, Outcome, Running, database, quantile};
use super::seed::{self, Seed};

const KNOWN: u32 = 100_000;
/// Pools with statistics; four of them are configured.
const POOLS: u64 = 50;
const ROUNDS: usize = 15;
const GOAL: Duration = Duration::from_millis(50);
const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

pub(crate) fn run() -> Outcome<()> {
    println!(
        "\n== what the dashboard asks for; fastest, median and slowest of {ROUNDS}, goal {} ms",
        GOAL.as_millis()
    );
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", database(folder.path()).display());
    let mut service = on("SQLite", &url, folder.path())?;
    table(&mut service)?;
    let server = PostgresServer::start()?;
    let name = server.create_database()?;
    let other = tempfile::tempdir()?;
    // What autovacuum does on a server that runs for more than a minute.
    let tidy = || server.execute(&name, "VACUUM ANALYZE").map(drop);
    drop(on_tidied("PostgreSQL", &server.url(&name), other.path(), tidy)?);
    browser(&service, folder.path())
}

fn on(name: &str, url: &str, folder: &Path) -> Outcome<Running> {
    on_tidied(name, url, folder, || Ok(()))
}

fn on_tidied(
    name: &str,
    url: &str,
    folder: &Path,
    tidy: impl FnOnce() -> std::io::Result<()>,
) -> Outcome<Running> {
    let begun = Instant::now();
    Seed { known: KNOWN, live_one_in: 2, pools_with_evidence: 2 }.plant_on(url)?;
    let rows = plant_year(url)?;
    tidy()?;
    println!("{name}: {rows} rows of statistics, filled in {:.0} s", begun.elapsed().as_secs_f64());
    let zone = match ahead_h()? {
        0 => "UTC".to_owned(),
        // In these names the sign is that of the way back to UTC.
        ahead => format!("Etc/GMT{:+}", -ahead),
    };
    let more = format!("timezone = {zone}\n{}[gateway]\nenabled = false\n", seed::configuration());
    let mut service = Running::service_on(url, folder, &more)?;
    service.wait_for("/ready")?;
    // Everything is in its pools.
    std::thread::sleep(Duration::from_secs(2));
    statistics(&service)?;
    Ok(service)
}

/// Every minute of today and every tenth of the year before, for 50 pools. Returns how many rows that is.
fn plant_year(url: &str) -> Outcome<u64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let store: Box<dyn Store> = match url.strip_prefix("sqlite://") {
            Some(path) => Box::new(SqliteStore::open(path).await?),
            None => Box::new(PostgresStore::open(&PostgresOptions::new(url, 10)).await?),
        };
        let today = today_ms()?;
        let mut rows = 0;
        for day in (0..366).rev() {
            let start = today - day * DAY_MS;
            let step = if day == 0 { 1 } else { 10 };
            // Of today what has passed: nobody has written the rest.
            let passed = if day == 0 { (now_ms()? - start) / MINUTE_MS } else { 1440 };
            let minutes = (0..passed).step_by(step).flat_map(|minute| {
                (0..POOLS).map(move |pool| MinuteCount {
                    pool: pool_name(pool),
                    minute: Timestamp::from_millis(start + minute * MINUTE_MS),
                    successes: (minute as u64 * 7 + pool * 13) % 50,
                    failures: 1 + (minute as u64 + pool) % 9,
                })
            });
            let minutes: Vec<MinuteCount> = minutes.collect();
            rows += minutes.len() as u64;
            store.write(&Batch { writer: 77, sequence: 366 - day, minutes, ..Batch::default() }).await?;
        }
        store.close().await;
        Ok(rows)
    })
}

fn pool_name(pool: u64) -> String {
    seed::POOLS.get(pool as usize).map_or_else(|| format!("pool-{pool:02}"), |name| (*name).to_owned())
}

fn now_ms() -> Outcome<i64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64)
}

/// How many hours the clock of the service is ahead of UTC: it shall be past ten in the evening there, so that a day is as
/// long as it gets.
fn ahead_h() -> Outcome<i64> {
    let ahead = 22 - now_ms()? % DAY_MS / HOUR_MS;
    Ok(if ahead > 12 { ahead - 24 } else { ahead })
}

/// When the day of the service began.
fn today_ms() -> Outcome<i64> {
    let ahead_ms = ahead_h()? * HOUR_MS;
    let local = now_ms()? + ahead_ms;
    Ok(local - local % DAY_MS - ahead_ms)
}

/// Every statistics endpoint, while reports come in.
fn statistics(service: &Running) -> Outcome<()> {
    let date = |days_ago: i64| -> Outcome<String> {
        let day = today_ms()? + ahead_h()? * HOUR_MS - days_ago * DAY_MS;
        Ok(jiff::Timestamp::from_millisecond(day)?.strftime("%F").to_string())
    };
    let today = date(0)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let address = service.address;
        let is_over = &is_over;
        let reports = scope.spawn(move || {
            let mut client = Client::connect(address).ok()?;
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let pool = pool_name(n % 4);
                let proxy = seed::address(n as u32 % KNOWN).ok()?.url();
                let body = format!(r#"{{"source":"{pool}","proxy":"{proxy}","status":200}}"#);
                client.send("/feedback", Some(&body)).ok()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Some(())
        });
        let measured = (|| {
            let mut client = Client::connect(address)?;
            for interval in [10, 2, 60] {
                let path = format!("/api/stats/overview?date={today}&interval={interval}");
                once_and(&mut client, &format!("a day of {POOLS} pools, every {interval} minutes"), &path)?;
            }
            let path = format!("/api/stats/overview?date={}", date(200)?);
            once_and(&mut client, &format!("an old day of {POOLS} pools"), &path)?;
            for (name, path) in [
                ("a day of one pool", format!("/api/stats/daily?source=pool-07&date={today}")),
                (
                    "its chart, every 2 minutes",
                    format!("/api/stats/timeseries?source=pool-07&date={today}&interval=2&fill=1"),
                ),
                ("names of all pools", "/api/sources".to_owned()),
            ] {
                once_and(&mut client, name, &path)?;
            }
            Outcome::Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        reports.join().ok().flatten().ok_or("reports were not taken")?;
        measured
    })
}

/// Every order, filter and depth of the table.
fn table(service: &mut Running) -> Outcome<()> {
    println!("the table of {KNOWN} proxies:");
    let mut client = Client::connect(service.address)?;
    for sort in ["known", "score", "latency", "probed", "uses"] {
        for order in ["asc", "desc"] {
            let mut times = Vec::new();
            for offset in [0, 1_000, 50_000, 99_950] {
                let path =
                    format!("/api/proxies?source=alpha&sort={sort}&order={order}&limit=50&offset={offset}");
                times.push((offset, measure(&mut client, &path)?));
            }
            let depths: Vec<String> = times
                .iter_mut()
                .map(|(offset, times)| format!("from {offset}: {}", figures(times)))
                .collect();
            println!("  by {sort} {order}: {}", depths.join(", "));
        }
    }
    for filter in [
        "protocol=socks5",
        "country=DE",
        "anonymity=elite",
        "https=1",
        "ability=connect_443",
        "label=injects",
        "min_score=50",
        "feed=a_public_feed",
        "liveness=dead",
        "tier=proven",
        "state=ready",
        "text=1",
        "text=12.3",
        "text=socks5%3A%2F%2F",
        "text=nothing-has-this",
        "text=5%3A2&state=ready&min_score=10",
    ] {
        let mut times =
            measure(&mut client, &format!("/api/proxies?source=alpha&sort=score&order=desc&{filter}"))?;
        println!("  by score, {filter}: {}", figures(&mut times));
    }
    for (name, path) in [
        ("one pool in detail", "/api/pool?source=alpha"),
        ("all pools", "/api/pools"),
        ("feeds", "/api/feeds"),
        ("overview", "/api/overview"),
    ] {
        once_and(&mut client, name, path)?;
    }
    Ok(())
}

/// Prints what the first answer took, and those that followed.
fn once_and(client: &mut Client, name: &str, path: &str) -> Outcome<()> {
    let first = ask(client, path)?;
    let mut times = measure(client, path)?;
    println!("  {name}: {}, first {:.1} ms", figures(&mut times), first.as_secs_f64() * 1e3);
    Ok(())
}

fn measure(client: &mut Client, path: &str) -> Outcome<Vec<Duration>> {
    (0..ROUNDS).map(|_| ask(client, path)).collect()
}

fn ask(client: &mut Client, path: &str) -> Outcome<Duration> {
    match client.send(path, None)? {
        (200, took) => Ok(took),
        (status, _) => Err(format!("{path}: status {status}").into()),
    }
}

fn figures(times: &mut [Duration]) -> String {
    let median = quantile(times, 0.5);
    let missed = if median > GOAL { " MISSED" } else { "" };
    let [first, median, last] = [0.0, 0.5, 1.0].map(|p| quantile(times, p).as_secs_f64() * 1e3);
    format!("{first:.1} {median:.1} {last:.1} ms{missed}")
}

/// Figures that only a browser can give.
fn browser(service: &Running, folder: &Path) -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/tools/clients/node_modules");
    if !modules.join("playwright-core").exists() {
        println!("in Chromium: not measured, playwright-core is missing (./test.sh installs it)");
        return Ok(());
    }
    let output = Command::new("node")
        .arg(root.join("tests/dashboard/figures.js"))
        .arg(service.address.to_string())
        .arg(folder.join("profile"))
        .env("NODE_PATH", modules)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    print!("in Chromium:\n{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
