//! Signals to a server and all of its processes. Each of these leads a session of its own, so that a signal to a group
//! does not reach them.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process};

pub(super) fn signal(process: u32, signal: Signal) -> io::Result<()> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    kill_process(process, signal).map_err(io::Error::from)
}

/// The server first, so that it starts no new process meanwhile.
pub(super) fn signal_all(server: u32, signal_to_all: Signal) -> io::Result<()> {
    let children = children(server)?;
    signal(server, signal_to_all)?;
    // Once more, for those that were started between the two.
    for child in children.into_iter().chain(self::children(server).unwrap_or_default()) {
        // One that has ended meanwhile is no error.
        let _ = signal(child, signal_to_all);
    }
    Ok(())
}

pub(super) fn children(parent: u32) -> io::Result<Vec<u32>> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    Ok(listed.split_whitespace().filter_map(|id| id.parse().ok()).collect())
}
