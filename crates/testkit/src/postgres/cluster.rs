//! Finding PostgreSQL's programs, and making a cluster.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::disk::SmallDisk;

/// Debian's packages: `VERSION/bin` below this.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The first version whose `initdb` knows ICU locales.
const FIRST_WITH_ICU: u32 = 15;

const MISSING: &str = "PostgreSQL is missing: no initdb and postgres in /usr/lib/postgresql/*/bin or PATH; \
                       install the package postgresql (./test.sh does)";

/// The directory of a cluster, and who owns it.
#[derive(Debug)]
pub(super) struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    /// User and group that run the server, when it is not ours to run.
    owner: Option<(u32, u32)>,
    /// Where the data is, when not in the directory itself.
    disk: Option<SmallDisk>,
}

impl Cluster {
    /// Makes an empty cluster in a directory of its own, which the caller removes; its data on a file system of
    /// `disk_mebibytes`, if given.
    pub(super) fn make(disk_mebibytes: Option<u32>) -> io::Result<Self> {
        let programs = find_programs()?;
        let directory = make_directory()?;
        let mut cluster = Self { owner: owner(&directory)?, programs, directory, disk: None };
        cluster.initialise(disk_mebibytes).inspect_err(|_| {
            let _ = fs::remove_dir_all(&cluster.directory);
        })?;
        Ok(cluster)
    }

    fn initialise(&mut self, disk_mebibytes: Option<u32>) -> io::Result<()> {
        if let Some((user, group)) = self.owner {
            chown(&self.directory, Some(user), Some(group))?;
        }
        if let Some(mebibytes) = disk_mebibytes {
            let mount_point = self.directory.join("disk");
            fs::create_dir(&mount_point)?;
            self.disk = Some(SmallDisk::mount(&mount_point, mebibytes, self.owner)?);
        }
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data());
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        if self.disk.is_some() {
            // Small as the disk is.
            initdb.arg("--wal-segsize=1");
        }
        if self.version()? >= FIRST_WITH_ICU {
            // A locale that sorts as people do, not as bytes do: what relies on bytes must say so.
            initdb.args(["--locale-provider=icu", "--icu-locale=en-US"]);
        }
        let output = initdb.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("initdb failed: {}", text.trim())));
        }
        self.write_access_rules("trust")
    }

    /// Who may connect over TCP: `method` as in `pg_hba.conf`. The Unix socket stays open to all.
    pub(super) fn write_access_rules(&self, method: &str) -> io::Result<()> {
        let rules = format!(
            "local all all trust\nhost all all 127.0.0.1/32 {method}\nhost all all ::1/128 {method}\n"
        );
        fs::write(self.data().join("pg_hba.conf"), rules)
    }

    fn version(&self) -> io::Result<u32> {
        let output = Command::new(self.program("postgres")).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        let version =
            text.split_whitespace().nth(2).and_then(|word| word.split(['.', 'b', 'r']).next()?.parse().ok());
        version.ok_or_else(|| io::Error::other(format!("no version in: {text}")))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn data(&self) -> PathBuf {
        self.disk.as_ref().map_or(&*self.directory, SmallDisk::root).join("data")
    }

    pub(super) fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// `program` of PostgreSQL, run as the owner of the cluster.
    pub(super) fn command(&self, program: &str) -> Command {
        self.command_of(&self.program(program))
    }

    /// Any program, run as the owner of the cluster.
    pub(super) fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Its owner may not enter where we stand.
        command.current_dir(&self.directory).process_group(0);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

/// The directory of `initdb` and `postgres`: of Debian's newest version, or else in PATH.
fn find_programs() -> io::Result<PathBuf> {
    let version = |path: &PathBuf| path.parent().and_then(Path::file_name)?.to_str()?.parse::<u32>().ok();
    let mut debian: Vec<PathBuf> =
        fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    debian.sort_by_key(|path| std::cmp::Reverse(version(path)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian
        .into_iter()
        .chain(std::env::split_paths(&path))
        .find(|directory| ["initdb", "postgres", "psql"].iter().all(|name| directory.join(name).is_file()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, MISSING))
}

/// For its owner only. Short, because the path of a Unix socket has at most 107 bytes.
fn make_directory() -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("smartproxy-pg-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map(|()| path),
        }
    }
}

/// The user `postgres` when we are root, who may not run a server; else nobody but us.
fn owner(ours: &Path) -> io::Result<Option<(u32, u32)>> {
    if fs::metadata(ours)?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"postgres"))
        .and_then(|fields| Some(Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "there is no user postgres, and root may not run PostgreSQL",
            )
        })
}
