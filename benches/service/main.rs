//! What the whole service costs: `cargo bench --bench service [-- NAME...]`.
//!
//! The service runs as it is shipped, in a process and a folder of its own, on loopback alone, and is looked at from
//! outside: CPU and memory as the kernel counts them.
//!
//! - `api`: handouts and reports beside a bare axum server that parses the same input (needs `wrk`).
//! - `start`: from the start of the process to the first handout.
//! - `cycle`: validation cycles over good proxies and over black holes.
//! - `gateway`: the gateway beside HAProxy and other proxies, and with half of its upstreams dead.
//! - `million`: a million live proxies on both stores: start, memory, who waits.
//! - `dashboard`: what the page for people asks for, on both stores and in Chromium.
//! - `hang`: handouts and reports while PostgreSQL hangs.
//!
//! `bare`, `upstreams` and `gateway-...` are this program again, as the other side of these.

mod api;
mod bare;
mod cycle;
mod dashboard;
mod gateway;
mod hang;
mod million;
mod process;
mod seed;
mod start;
mod upstreams;

use process::Outcome;

type Bench = (&'static str, fn() -> Outcome<()>);

const BENCHES: [Bench; 7] = [
    ("api", api::run),
    ("start", start::run),
    ("cycle", cycle::run),
    ("gateway", gateway::run),
    ("million", million::run),
    ("hang", hang::run),
    ("dashboard", dashboard::run),
];

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("bare") => return bare::serve(&args[1]),
        Some("upstreams") => return upstreams::serve(),
        Some("gateway-origin") => return gateway::serve_origin(),
        Some("gateway-failing") => return gateway::serve_failing(),
        _ => {}
    }
    // `cargo bench` says so; `cargo test --all-targets` does not, and must not take minutes.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("run it by: cargo bench --bench service");
        return Ok(());
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| *arg != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|arg| !BENCHES.iter().any(|(name, _)| **arg == *name)) {
        return Err(format!(
            "no bench is called {unknown:?}: api, start, cycle, gateway, million, hang, dashboard"
        )
        .into());
    }
    for (name, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|arg| arg.as_str() == name) {
            run()?;
        }
    }
    Ok(())
}
