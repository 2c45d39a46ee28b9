//! Other processes, seen from outside.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long a process may take to begin to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed when it goes out of scope.
pub(crate) struct Running {
    child: Child,
    /// Where it answers.
    pub(crate) address: SocketAddr,
}

impl Running {
    /// The service, with a folder of its own and `more` at the end of its configuration. It may not answer yet.
    pub(crate) fn service(folder: &Path, more: &str) -> Outcome<Self> {
        Self::service_on(&format!("sqlite://{}", database(folder).display()), folder, more)
    }

    /// The same on the database at this URL.
    pub(crate) fn service_on(url: &str, folder: &Path, more: &str) -> Outcome<Self> {
        let address = free_address()?;
        let config = folder.join("config.ini");
        std::fs::write(&config, configuration(url, folder, address, more))?;
        let child = Command::new(env!("CARGO_BIN_EXE_smartproxy"))
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, address })
    }

    /// This program again, as `name`, which answers at the address that is its argument.
    pub(crate) fn ourselves(name: &str) -> Outcome<Self> {
        let address = free_address()?;
        let child = Command::new(std::env::current_exe()?).arg(name).arg(address.to_string()).spawn()?;
        Ok(Self { child, address })
    }

    /// Another program, which answers at `address`. What it says is not shown.
    pub(crate) fn spawn(command: &mut Command, address: SocketAddr) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own, so that its children end with it.
        let child = command.process_group(0).spawn()?;
        Ok(Self { child, address })
    }

    /// An error when it has ended.
    pub(crate) fn check(&mut self) -> Outcome<()> {
        self.child.try_wait()?.map_or(Ok(()), |status| Err(format!("the process ended: {status}").into()))
    }

    /// Waits until `path` is answered with 200.
    pub(crate) fn wait_for(&mut self, path: &str) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            if let Ok((200, _)) = get(self.address, path) {
                return Ok(());
            }
            self.check()?;
            if begun.elapsed() > PATIENCE {
                return Err(format!("{path} was not answered with 200 in {PATIENCE:?}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// User and system time so far, of all its threads and of the processes that it has started; the kernel counts in
    /// hundredths of a second.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let ours = self.child.id();
        let mut ticks = 0;
        let mut found = vec![ours];
        // Children have higher numbers than their parents, unless the numbers began anew meanwhile.
        let mut all: Vec<u32> = std::fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|number| *number >= ours)
            .collect();
        all.sort_unstable();
        for number in all {
            // A process of others may have ended by now.
            let Ok((parent, used)) = parent_and_ticks(number) else { continue };
            if number == ours || found.contains(&parent) {
                found.push(number);
                ticks += used;
            }
        }
        Ok(Duration::from_millis(ticks * 10))
    }

    /// `VmRSS` (now) or `VmHWM` (peak), in MiB.
    pub(crate) fn memory_mib(&self, key: &str) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib: f64 = line.ok_or("no such line")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

/// What [`Running::service_on`] is configured with. `more` may begin with keys of `[server]`.
pub(crate) fn configuration(url: &str, folder: &Path, address: SocketAddr, more: &str) -> String {
    format!(
        "[database]\nurl = {url}\n[logging]\nlog_dir = {}\n[backup]\nstats_backup_path = {}\n[server]\nport = {}\n{more}",
        folder.join("logs").display(),
        folder.join("backup.json").display(),
        address.port(),
    )
}

/// A connection that stays open for many requests.
pub(crate) struct Client {
    stream: TcpStream,
    address: SocketAddr,
    reply: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, reply: Vec::new() })
    }

    /// Sends a GET, or a POST when there is a body, and returns the status and how long the whole answer took.
    pub(crate) fn send(&mut self, path: &str, body: Option<&str>) -> Outcome<(u16, Duration)> {
        let (method, body) = body.map_or(("GET", ""), |body| ("POST", body));
        let length = body.len();
        let begun = Instant::now();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.address);
        self.stream.write_all((head + body).as_bytes())?;
        self.reply.clear();
        let mut buffer = vec![0; 64 * 1024];
        // Where the reply ends, and its status, once the head is there.
        let mut found = None;
        loop {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err("the connection was closed".into());
            }
            self.reply.extend_from_slice(&buffer[..read]);
            if found.is_none() {
                let Some(end) = self.reply.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&self.reply[..end]);
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(": "))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map_or(Ok(0), |(_, length)| length.parse::<usize>())?;
                found = Some((end + 4 + length, head.split(' ').nth(1).ok_or("no status")?.parse()?));
            }
            if let Some((_, status)) = found.filter(|(end, _)| self.reply.len() >= *end) {
                return Ok((status, begun.elapsed()));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing of it is needed any more; a process that has ended by itself is no trouble.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The database of a service in `folder`.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("smartproxy.db")
}

/// The parent of a process, and its user and system time in hundredths of a second.
fn parent_and_ticks(number: u32) -> Outcome<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat"))?;
    // The name in brackets may hold anything; ppid, utime and stime are the 4th, 14th and 15th field (proc(5)).
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |at: usize| fields.get(at - 3).copied().ok_or("/proc/PID/stat is short");
    Ok((field(4)?.parse()?, field(14)?.parse::<u64>()? + field(15)?.parse::<u64>()?))
}

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Status and body of one GET request.
pub(crate) fn get(address: SocketAddr, path: &str) -> Outcome<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or("no head")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The value that a share of `p` does not exceed.
pub(crate) fn quantile(values: &mut [Duration], p: f64) -> Duration {
    values.sort_unstable();
    let at = (values.len() as f64 * p) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
