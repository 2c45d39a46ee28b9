//! Handouts and reports while PostgreSQL hangs (SIGSTOP), beside the same while it runs, in turns.

use std::time::{Duration, Instant};

use smartproxy_testkit::PostgresServer;

use super::process::{Client, Outcome, Running, quantile};
use super::seed::{self, Seed};

const LIVE: u32 = 5_000;
const ROUNDS: usize = 4;
const WATCHED: Duration = Duration::from_secs(4);

pub(crate) fn run() -> Outcome<()> {
    println!(
        "\n== handouts and reports while PostgreSQL hangs, {LIVE} live proxies, {ROUNDS} rounds of {} s each",
        WATCHED.as_secs()
    );
    let server = PostgresServer::start()?;
    let url = server.url(&server.create_database()?);
    let folder = tempfile::tempdir()?;
    Seed { known: LIVE, live_one_in: 1, pools_with_evidence: 0 }.plant_on(&url)?;
    let mut service = Running::service_on(&url, folder.path(), &seed::configuration())?;
    service.wait_for("/get-proxy?source=alpha")?;
    let mut client = Client::connect(service.address)?;
    let (mut running, mut hanging) = (Vec::new(), Vec::new());
    watch(&mut client, &mut Vec::new())?;
    for _ in 0..ROUNDS {
        watch(&mut client, &mut running)?;
        server.pause()?;
        let watched = watch(&mut client, &mut hanging);
        server.resume()?;
        watched?;
    }
    for p in [0.5, 0.99, 0.999] {
        let (running, hanging) = (quantile(&mut running, p), quantile(&mut hanging, p));
        println!(
            "  p{:<5} running {:.3} ms, hanging {:.3} ms, ratio {:.2}",
            p * 100.0,
            running.as_secs_f64() * 1e3,
            hanging.as_secs_f64() * 1e3,
            hanging.as_secs_f64() / running.as_secs_f64()
        );
    }
    println!("  requests: {} running, {} hanging", running.len(), hanging.len());
    Ok(())
}

fn watch(client: &mut Client, times: &mut Vec<Duration>) -> Outcome<()> {
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < WATCHED {
        let (status, took) = client.send("/get-proxy?source=alpha", None)?;
        if status != 200 {
            return Err(format!("status {status}").into());
        }
        times.push(took);
        let body = format!(
            r#"{{"source":"beta","proxy":"{}","status":200,"response_time_ms":420}}"#,
            seed::address(number % LIVE)?.url()
        );
        number += 1;
        times.push(client.send("/feedback", Some(&body))?.1);
    }
    Ok(())
}
