//! `smartproxy import FILE`: a list in any format of the contract, or a backup file.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use smartproxy_core::Protocol;
use smartproxy_core::list::{self, ListOptions};

use super::{Common, FAILED, Failure, WRONG_INPUT};
use crate::{app, backup, clock};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file; `-` reads standard input
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
    let bytes = read(args, config.fetcher.max_list_bytes)?;
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
        let imported = super::block_on(app::import_backup(config, contents))?;
        println!(
            "{}: {} new proxies, {} pairs of pool and proxy taken in, {} entries skipped",
            args.file.display(),
            imported.new_proxies,
            imported.adopted,
            imported.skipped
        );
        return Ok(());
    }
    let parsed = list::parse(
        &bytes,
        &ListOptions {
            default_protocol: args.protocol,
            allow_special: config.fetcher.allow_private_proxies,
            max_proxies: config.fetcher.max_proxies_per_list as usize,
        },
    );
    let listed = parsed.proxies.len();
    if listed == 0 {
        let why = format!("{}: no proxies found (refused: {})", args.file.display(), parsed.rejected);
        return Err(Failure::new(WRONG_INPUT, why));
    }
    let new = super::block_on(app::import_list(config, parsed.proxies))?;
    println!("{}: {listed} proxies, {new} of them new; refused: {}", args.file.display(), parsed.rejected);
    if app::running_process(config).is_some() {
        println!("the running service takes them in with its next validation cycle");
    }
    Ok(())
}

fn read(args: &ImportArgs, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let name = args.file.display();
    let mut bytes = Vec::new();
    let source: Box<dyn std::io::Read> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(&args.file).with_context(|| name.to_string())?)
    };
    // A backup file may be larger than a list; both are bounded.
    let bound = max_bytes.max(1 << 30);
    source.take(bound + 1).read_to_end(&mut bytes).with_context(|| name.to_string())?;
    anyhow::ensure!(bytes.len() as u64 <= bound, "{name}: larger than {bound} bytes");
    Ok(bytes)
}

/// A JSON object with the key of a backup file in its first bytes or last: cheap to see, and no list has it.
fn looks_like_backup(bytes: &[u8]) -> bool {
    let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    is_object && bytes.windows(14).take(4096).any(|window| window == b"\"source_stats\"")
}
