//! From the start of the process to the first handout.

use std::time::Instant;

use super::process::{Outcome, Running, median};
use super::seed::{self, Seed};

const KNOWN: u32 = 100_000;
const ROUNDS: usize = 7;

pub(crate) fn run() -> Outcome<()> {
    println!("\n== start with {KNOWN} known proxies and 4 pools, to the first 200 on /get-proxy");
    for (name, live_one_in, pools_with_evidence) in [
        ("one in 20 live, no evidence", 20, 0),
        ("one in 20 live, 200,000 evidence", 20, 2),
        ("all live, no evidence", 1, 0),
    ] {
        let folder = tempfile::tempdir()?;
        Seed { known: KNOWN, live_one_in, pools_with_evidence }.plant(folder.path())?;
        let (mut walls, mut cpus, mut memory) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let mut service = Running::service(folder.path(), &seed::configuration())?;
            service.wait_for("/get-proxy?source=alpha")?;
            walls.push(begun.elapsed().as_secs_f64());
            cpus.push(service.cpu()?.as_secs_f64());
            memory = service.memory_mib("VmRSS")?;
        }
        let worst = walls.iter().copied().fold(0.0, f64::max);
        println!(
            "  {name:<34}{:.2} s (worst {worst:.2}, goal 0.50), {:.2} s CPU, {memory:.0} MiB",
            median(walls),
            median(cpus)
        );
    }
    Ok(())
}
