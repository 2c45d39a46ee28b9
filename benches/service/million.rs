//! A million known live proxies: the start, the memory, and who waits while pools are brought up to date; on both stores.

use std::path::Path;
use std::time::{Duration, Instant};

use smartproxy_testkit::PostgresServer;

use super::process::{Client, Outcome, Running, configuration, database, quantile};
use super::seed::{self, Seed};

const KNOWN: u32 = 1_000_000;
/// How long handouts and reports are timed in each situation.
const WATCHED: Duration = Duration::from_secs(4);
/// A service that takes longer to load has gone wrong.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run() -> Outcome<()> {
    println!("\n== {KNOWN} known live proxies in one pool");
    let folder = tempfile::tempdir()?;
    on("SQLite", &format!("sqlite://{}", database(folder.path()).display()), folder.path())?;
    let server = PostgresServer::start()?;
    let database = server.create_database()?;
    let folder = tempfile::tempdir()?;
    on("PostgreSQL", &server.url(&database), folder.path())
}

fn on(name: &str, url: &str, folder: &Path) -> Outcome<()> {
    let begun = Instant::now();
    Seed { known: KNOWN, live_one_in: 1, pools_with_evidence: 0 }.plant_on(url)?;
    println!("{name}: filled in {:.1} s", begun.elapsed().as_secs_f64());
    let more = |pools: &str| {
        format!(
            "[sources]\npredefined_sources = {pools}\ndefault_source = alpha\n\
             [validator]\nvalidation_target = http://127.0.0.1:9/\n[scheduler]\nvalidation_interval_seconds = 0.5\n\
             [gateway]\nenabled = false\n"
        )
    };

    let begun = Instant::now();
    let mut service = Running::service_on(url, folder, &more("alpha"))?;
    service.wait_for("/get-proxy?source=alpha")?;
    let first = begun.elapsed();
    let mut client = Client::connect(service.address)?;
    let mut during = Vec::new();
    while client.send("/ready", None)?.0 != 200 {
        during.push(client.send("/get-proxy?source=alpha", None)?.1);
        if begun.elapsed() > PATIENCE {
            return Err("it does not become ready".into());
        }
    }
    println!(
        "  first handout after {:.2} s (goal 3.00), all in their pool after {:.2} s; resident {:.0} MiB (goal 250), peak {:.0}",
        first.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        service.memory_mib("VmRSS")?,
        service.memory_mib("VmHWM")?
    );
    print("while loading", &mut during);
    watch("with a scan for due proxies twice a second", &mut client, || Ok(()))?;
    let config = configuration(url, folder, service.address, &more("alpha, beta"));
    let mut other = Client::connect(service.address)?;
    std::fs::write(folder.join("config.ini"), config)?;
    watch("while a second pool takes in all of them", &mut client, move || {
        let (status, took) = other.send("/reload-sources", Some(""))?;
        println!("  the reload: status {status}, {:.2} s", took.as_secs_f64());
        Ok(())
    })?;
    println!(
        "  resident {:.0} MiB with two pools, peak {:.0}",
        service.memory_mib("VmRSS")?,
        service.memory_mib("VmHWM")?
    );
    Ok(())
}

/// Times handouts and reports while `work` is done.
fn watch(name: &str, client: &mut Client, work: impl FnOnce() -> Outcome<()> + Send) -> Outcome<()> {
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let working = scope.spawn(move || work().map_err(|error| error.to_string()));
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < WATCHED || !working.is_finished() {
            times.push(client.send("/get-proxy?source=alpha", None)?.1);
            let body = format!(
                r#"{{"source":"alpha","proxy":"{}","status":200,"response_time_ms":420}}"#,
                seed::address(number % KNOWN)?.url()
            );
            number += 7919;
            times.push(client.send("/feedback", Some(&body))?.1);
        }
        working.join().map_err(|_| "it panicked")??;
        Outcome::Ok(())
    })?;
    print(name, &mut times);
    Ok(())
}

fn print(name: &str, times: &mut [Duration]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, p99) = (quantile(times, 0.5), quantile(times, 0.99));
    let most = times.last().copied().unwrap_or_default();
    println!(
        "  {name}: {} requests, median {:.2} ms, p99 {:.2} ms, slowest {:.1} ms",
        times.len(),
        ms(median),
        ms(p99),
        ms(most)
    );
}
