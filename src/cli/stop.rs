//! `smartproxy stop`.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Common, FAILED, Failure, NOT_RUNNING};

/// Time for the last save and the backup, beside the time for open requests.
const SAVE_TIME: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) fn stop(common: &Common) -> Result<(), Failure> {
    let loaded = common.load()?;
    let running = || crate::app::running_process(&loaded.config);
    let Some(process) = running() else { return Err(Failure::new(NOT_RUNNING, "not running")) };
    let pid = i32::try_from(process)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Failure::new(FAILED, format!("{process} is no process number")))?;
    kill_process(pid, Signal::TERM).map_err(|error| {
        Failure::new(FAILED, format!("process {process} cannot be told to stop: {error}"))
    })?;
    let deadline = Instant::now() + loaded.config.server.shutdown_grace + SAVE_TIME;
    while running() == Some(process) {
        if Instant::now() > deadline {
            return Err(Failure::new(FAILED, format!("process {process} was told to stop and still runs")));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    super::print(&format!("smartproxy stopped (process {process})\n"))
}
