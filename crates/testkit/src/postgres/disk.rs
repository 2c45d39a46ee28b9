//! A small file system for a cluster: what a test calls a full disk is one.
//!
//! It lives in memory (tmpfs), in a mount namespace that a process of ours holds. Nobody else sees it, and it is gone
//! with that process and the server; both are reached through `/proc/PID/root`. Root may always do this where it may
//! mount at all, other users where the system lets them make namespaces of their own.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounts `$2` MiB at `$1`, for the user `$3` and the group `$4` if they are given, and waits for the end of its input
/// or to be killed. It stays a while after that end, because whoever clears up looks for the server in it first.
const HOLDER: &str = r#"
    trap '' INT TERM HUP
    if [ -n "$3" ]; then
        mount -t tmpfs -o "size=$2m,mode=0700,uid=$3,gid=$4" tmpfs "$1" || exit 1
        exec setpriv --reuid "$3" --regid "$4" --clear-groups -- sh -c 'echo mounted; cat >/dev/null; sleep 20'
    fi
    mount -t tmpfs -o "size=$2m,mode=0700" tmpfs "$1" || exit 1
    echo mounted; cat >/dev/null; sleep 20
"#;

/// What fills the disk is written in pieces of this many bytes, the last ones byte by byte.
const PIECE: usize = 64 * 1024;

/// A file system of its own.
#[derive(Debug)]
pub(super) struct SmallDisk {
    holder: Child,
    root: PathBuf,
}

impl SmallDisk {
    /// Mounts `mebibytes` at the existing `directory`, for processes of `owner` when that is somebody else.
    pub(super) fn mount(directory: &Path, mebibytes: u32, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]);
        if owner.is_none() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["sh", "-c", HOLDER, "holder"]).arg(directory).arg(mebibytes.to_string());
        if let Some((user, group)) = owner {
            unshare.arg(user.to_string()).arg(group.to_string());
        }
        let mut holder =
            unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.trim_end() != "mounted" {
            let said = holder.wait_with_output()?.stderr;
            let why = String::from_utf8_lossy(&said).trim().to_owned();
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("no file system of our own can be mounted here: {why}"),
            ));
        }
        let inside = directory.strip_prefix("/").unwrap_or(directory);
        let root = Path::new("/proc").join(holder.id().to_string()).join("root").join(inside);
        Ok(Self { holder, root })
    }

    /// Its root directory, as everybody sees it.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The process that keeps it.
    pub(super) fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Takes all the space that is left.
    pub(super) fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        let mut piece = PIECE;
        while piece > 0 {
            match ballast.write(&vec![0; piece]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => piece /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub(super) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
