//! The command line: what is asked for, and which exit code it ends with.
//!
//! Data goes to stdout, messages to stderr. One file holds one command.

mod backup;
mod check;
mod client;
pub mod config;
mod demo;
mod explain;
mod export;
mod import;
mod judge;
mod replay;
mod serve;
mod simulate;
mod status;
mod stop;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Loaded;

/// A proxy pool that learns, per target, which proxies work.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  smartproxy                                  start the service with ./config.ini, or built-in defaults without one
  smartproxy demo                             a whole world on this machine: see a pool learn within a minute
  smartproxy check proxies.txt > live.txt     which proxies of a list work; needs no service
  smartproxy import proxies.txt               add a list of proxies
  smartproxy config check                     what is wrong with the configuration
  smartproxy export --alive --format csv      the live proxies as CSV
  smartproxy explain --source shop URL        why a proxy stands where it stands in a pool

Exit codes:
  0  done
  1  it failed; stderr says why
  2  the command line or the configuration is wrong; stderr says where
  3  the service is not running (status, stop, explain)";

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Configuration file [default: ./config.ini when there is one, else built-in defaults]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Log every probe and every fetch
    #[arg(long, global = true)]
    debug: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (the same as no command)
    Serve,
    /// Add proxies from a list in any format, or evidence from a backup file
    Import(import::ImportArgs),
    /// Probe lists of proxies and print those that pass; needs no service and no database
    Check(Box<check::CheckArgs>),
    /// Print the known proxies
    Export(export::ExportArgs),
    /// Check, show or explain the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say whether the service runs, and how it is doing
    Status,
    /// Say why a proxy stands where it stands in a pool, and what would change it
    Explain(explain::ExplainArgs),
    /// Stop the running service: it finishes what is under way, saves all and writes a backup
    Stop,
    /// Write the backup file now
    Backup,
    /// Answer the questions of probes: an endpoint for a host of yours, so that proxies that tamper are found out
    Judge(judge::JudgeArgs),
    /// Let strategies compete in simulated worlds
    Simulate(simulate::SimulateArgs),
    /// Compare strategies on recorded events
    Replay(replay::ReplayArgs),
    /// Run the service in a world of its own on loopback: nothing leaves this machine
    Demo(demo::DemoArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Name everything that is wrong
    Check,
    /// Print the effective configuration, secrets masked, with where each value comes from
    Show {
        /// Print what the INI reader understood, as JSON, before any other check
        #[arg(long)]
        raw: bool,
    },
    /// Print an example with every key, its unit and its default
    Example,
}

/// It failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const WRONG_INPUT: u8 = 2;
/// The service is not running.
const NOT_RUNNING: u8 = 3;

/// Why a command did not do what was asked.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(FAILED, format!("{error:#}"))
    }
}

impl Common {
    /// The configuration of the file and the environment.
    fn load(&self) -> Result<Loaded, Failure> {
        crate::config::load(self.config.as_deref(), std::env::vars_os())
            .map_err(|errors| Failure::new(WRONG_INPUT, errors.to_string()))
    }
}

/// Runs `task` to its end on a runtime of its own.
fn block_on<T, E: Into<Failure>>(task: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FAILED, format!("no runtime: {error}")))?;
    runtime.block_on(task).map_err(Into::into)
}

/// Whether there is still somebody who reads: `smartproxy export | head` is no error.
fn written(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::from(error).context("stdout").into()),
    }
}

/// Prints `text` as it is.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush())).map(drop)
}

fn config_command(common: &Common, command: &ConfigCommand) -> ExitCode {
    let path = common.config.as_deref();
    let output = match command {
        ConfigCommand::Check => config::check(path, std::env::vars_os()),
        ConfigCommand::Show { raw: false } => config::show(path, std::env::vars_os()),
        ConfigCommand::Show { raw: true } => config::show_raw(path),
        ConfigCommand::Example => config::example(),
    };
    // A reader that has gone away is no failure of ours.
    let _ = io::stdout().write_all(output.stdout.as_bytes());
    let _ = io::stderr().write_all(output.stderr.as_bytes());
    ExitCode::from(output.exit_code)
}

/// Reads the command line, does what it says, and says how it went.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let common = &cli.common;
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(common),
        Command::Import(args) => import::import(common, &args),
        Command::Check(args) => check::check(common, &args),
        Command::Export(args) => export::export(common, &args),
        Command::Config(command) => return config_command(common, &command),
        Command::Status => status::status(common),
        Command::Explain(args) => explain::explain(common, &args),
        Command::Stop => stop::stop(common),
        Command::Backup => backup::backup(common),
        Command::Judge(args) => judge::judge(common, &args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Demo(args) => demo::demo(common, &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("smartproxy: {}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}
