//! What this machine allows: open files and memory.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files kept for everything that is no probe: API connections, the store, logs, feeds.
const RESERVED_FILES: u64 = 1024;
/// Memory of one probe in flight, with its share of kernel buffers, in bytes; measured 15 KiB, with room for TLS.
const PROBE_BYTES: u64 = 64 * 1024;
/// More concurrent probes than this help nobody: home routers lose count of their connections long before.
const MOST_WORKERS: u64 = 10_000;
/// Fewer would make a list of 100,000 take an hour.
const LEAST_WORKERS: u64 = 1000;

/// Raises the soft limit of open files to the hard one; returns what it is now.
pub(super) fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// Probes at the same time: what was `asked` for, or as many as files and memory allow, at least 1,000; never more
/// than there are files for.
pub(super) fn probe_workers(asked: Option<u32>, files: u64) -> usize {
    let most = files.saturating_sub(RESERVED_FILES).max(files / 2).max(1);
    let workers = match asked {
        Some(asked) if u64::from(asked) > most => {
            tracing::warn!(
                "[validator] validation_workers = {asked} is more than the limit of {files} open files allows: \
                 using {most}"
            );
            most
        }
        Some(asked) => u64::from(asked),
        None => (available_memory() / 4 / PROBE_BYTES).clamp(LEAST_WORKERS, MOST_WORKERS).min(most),
    };
    usize::try_from(workers).unwrap_or(usize::MAX)
}

/// Memory that is free for the taking, in bytes; 1 GiB when the system does not say.
fn available_memory() -> u64 {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kib.map_or(1 << 30, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_stay_within_the_files_there_are() {
        assert_eq!(probe_workers(Some(5000), 4096), 3072);
        assert_eq!(probe_workers(Some(100), 4096), 100);
        assert!((1000..=10_000).contains(&probe_workers(None, 1 << 20)));
        assert_eq!(probe_workers(None, 1024), 512);
    }
}
