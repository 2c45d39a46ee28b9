//! `smartproxy import FILE`: a list in any format of the contract, or a backup file.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use smartproxy_core::Protocol;
use smartproxy_core::list::{self, ListOptions, ParsedList};

use super::{Common, FAILED, Failure, WRONG_INPUT};
use crate::{app, backup, clock};

/// Most bytes of a file: a backup file may be larger than a list. It is read into memory.
const MOST_BYTES: u64 = 1 << 30;
/// Most proxies of a list: about 100 bytes of memory each. Unlike a feed's, a list that somebody chose is not cut off at
/// `[fetcher] max_proxies_per_list`.
const MOST_PROXIES: usize = 10_000_000;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file, up to 1 GiB and 10,000,000 proxies; `-` reads standard input
    file: PathBuf,
    /// Protocol of entries that do not say theirs [default: http]
    #[arg(long, value_parser = protocol)]
    protocol: Option<Protocol>,
}

fn protocol(word: &str) -> Result<Protocol, String> {
    Protocol::parse(word).ok_or_else(|| "use http, https, socks4, socks4a, socks5 or socks5h".to_owned())
}

pub(super) fn import(common: &Common, args: &ImportArgs) -> Result<(), Failure> {
    let loaded = common.load()?;
    let config = &loaded.config;
    let bytes = read(args)?;
    if looks_like_backup(&bytes) {
        let contents =
            backup::parse(&bytes, clock::now()).with_context(|| args.file.display().to_string())?;
        if let Some(process) = app::running_process(config) {
            let why = format!(
                "the service runs (process {process}) and holds the evidence in memory: stop it first to import a \
                 backup file"
            );
            return Err(Failure::new(FAILED, why));
        }
        let to_stderr =
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time();
        to_stderr.with_max_level(tracing::Level::WARN).init();
        let imported = super::block_on(app::import_backup(config, contents))?;
        return super::print(&format!(
            "{}: {} new proxies, {} pairs of pool and proxy taken in, {} entries skipped\n",
            args.file.display(),
            imported.new_proxies,
            imported.adopted,
            imported.skipped
        ));
    }
    let options = ListOptions {
        default_protocol: args.protocol,
        allow_special: config.fetcher.allow_private_proxies,
        max_proxies: MOST_PROXIES,
    };
    let parsed = parse_whole(&bytes, &options)
        .map_err(|why| Failure::new(WRONG_INPUT, format!("{}: {why}", args.file.display())))?;
    drop(bytes);
    let listed = parsed.proxies.len();
    let new = super::block_on(app::import_list(config, parsed.proxies))?;
    let told = format!(
        "{}: {listed} proxies, {new} of them new; refused: {}\n",
        args.file.display(),
        parsed.rejected
    );
    let later = match app::running_process(config) {
        Some(_) => "the running service takes them in with its next validation cycle\n",
        None => "",
    };
    super::print(&(told + later))
}

/// The proxies of a list, or why none of them is taken.
fn parse_whole(bytes: &[u8], options: &ListOptions) -> Result<ParsedList, String> {
    let parsed = list::parse(bytes, options);
    if parsed.truncated {
        return Err(format!("more than {} proxies, and none was imported: split it", options.max_proxies));
    }
    if parsed.proxies.is_empty() {
        return Err(format!("no proxies found (refused: {})", parsed.rejected));
    }
    Ok(parsed)
}

fn read(args: &ImportArgs) -> anyhow::Result<Vec<u8>> {
    let name = args.file.display();
    let mut bytes = Vec::new();
    let source: Box<dyn std::io::Read> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(&args.file).with_context(|| name.to_string())?)
    };
    source.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| name.to_string())?;
    anyhow::ensure!(bytes.len() as u64 <= MOST_BYTES, "{name}: larger than {MOST_BYTES} bytes");
    Ok(bytes)
}

/// A JSON object with the key of a backup file in its first bytes or last: cheap to see, and no list has it.
fn looks_like_backup(bytes: &[u8]) -> bool {
    let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    is_object && bytes.windows(14).take(4096).any(|window| window == b"\"source_stats\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_whole_or_not_at_all() {
        let options = ListOptions { max_proxies: 2, ..ListOptions::default() };
        let whole = parse_whole(b"203.0.114.1:80\n203.0.114.2:80\n203.0.114.1:80\n", &options).unwrap();
        assert_eq!((whole.proxies.len(), whole.truncated), (2, false));
        let why = parse_whole(b"203.0.114.1:80\n203.0.114.2:80\n203.0.114.3:80\n", &options).unwrap_err();
        assert_eq!(why, "more than 2 proxies, and none was imported: split it");
        assert_eq!(parse_whole(b"nothing", &options).unwrap_err(), "no proxies found (refused: no_entry: 1)");
    }
}
