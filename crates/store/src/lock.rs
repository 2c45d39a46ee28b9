//! Which process holds a database, or another file: a locked file beside it.
//!
//! `smartproxy.db.pid` is locked for as long as the service has `smartproxy.db` open, and holds its process id in
//! decimal. The lock counts, not the file: the system lets go of it when the process dies, however it dies, so a file
//! that was left behind means nothing.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often a lock is tried: [`holder`] and the short work of `open_shared` hold it for a moment, too.
const ATTEMPTS: u32 = 20;

/// Time between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The lock on one database, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// What became of a try to take the lock.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Ours(Lock),
    /// Another process has it: which one, when it says so.
    Theirs(Option<u32>),
}

impl Lock {
    /// Takes the lock of the database at `path`, and writes our process id into it when `announced`.
    pub async fn take(path: &Path, announced: bool) -> io::Result<Taken> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock_path(path))?;
        for _ in 0..ATTEMPTS {
            match file.try_lock() {
                Ok(()) => {
                    file.set_len(0)?;
                    if announced {
                        writeln!(file, "{}", std::process::id())?;
                    }
                    return Ok(Taken::Ours(Self { file }));
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(RETRY_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Taken::Theirs(announced_by(&mut file)))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only for tidiness: the lock itself ends with the file.
        let _ = self.file.set_len(0);
    }
}

/// The process of the service that has the database at `path` open now, if there is one. Processes that only share it
/// for a moment ([`SqliteStore::open_shared`](super::SqliteStore::open_shared)) do not count.
pub fn holder(path: &Path) -> Option<u32> {
    let mut file = File::open(lock_path(path)).ok()?;
    for _ in 0..ATTEMPTS {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        if let Some(process) = announced_by(&mut file) {
            return Some(process);
        }
        // Locked and empty: it is about to write its id, or to let go.
        thread::sleep(RETRY_INTERVAL);
        file = File::open(lock_path(path)).ok()?;
    }
    None
}

/// The same for every spelling of `path`: a link to a database leads to the lock of the database.
fn lock_path(path: &Path) -> PathBuf {
    let mut name: OsString = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into();
    name.push(".pid");
    name.into()
}

fn announced_by(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}
