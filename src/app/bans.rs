//! Bans by hand outlive a restart: `bans.json` beside the backup file, written whole whenever they change.
//!
//! ```text
//! {"bans": [{"proxy": "http://198.51.100.7:3128", "source": "shop", "until_ms": 1795406706000}]}
//! ```
//!
//! `source` null: all pools. `until_ms` null: until it is forgiven. No passwords: they do not matter.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use smartproxy_core::ProxyAddr;

use crate::pools::{Pools, Scope, shown};
use crate::{backup, clock};

/// Largest file that is read, in bytes: ten thousand bans take two million.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    bans: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    proxy: String,
    source: Option<String>,
    until_ms: Option<i64>,
}

/// Where the bans are, for a backup file at `backup`.
pub(super) fn path(backup: &Path) -> PathBuf {
    backup.with_file_name("bans.json")
}

/// Writes all bans. Blocks.
pub(super) fn save(pools: &Pools, path: &Path) -> anyhow::Result<()> {
    let entry = |ban: crate::pools::BanRow| Entry {
        proxy: shown(&ban.addr),
        source: ban.pool,
        until_ms: ban.until_ms,
    };
    let contents = Contents { bans: pools.bans().into_iter().map(entry).collect() };
    backup::replace(path, |file| Ok(serde_json::to_writer(file, &contents)?))
        .with_context(|| format!("bans file {}", path.display()))
}

/// Puts back what was saved; bans that ended meanwhile, and those of proxies or pools that are gone, are left out.
/// Returns how many hold.
pub(super) fn restore(pools: &Pools, path: &Path) -> anyhow::Result<usize> {
    let describe = || format!("bans file {}", path.display());
    match fs::metadata(path) {
        Ok(found) if found.len() > MOST_BYTES => {
            anyhow::bail!("{}: larger than {MOST_BYTES} bytes", describe())
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(describe),
    }
    let text = fs::read(path).with_context(describe)?;
    let contents: Contents = serde_json::from_slice(&text).with_context(describe)?;
    let now = clock::now().millis();
    let mut restored = 0;
    for entry in contents.bans {
        let left_ms = entry.until_ms.map(|until| until.saturating_sub(now));
        let (Ok(addr), true) = (ProxyAddr::parse(&entry.proxy), left_ms.is_none_or(|left| left > 0)) else {
            continue;
        };
        let scope = entry.source.as_deref().map_or(Scope::Everywhere, Scope::Pool);
        let time = left_ms.map(|left| Duration::from_millis(left.unsigned_abs()));
        restored += usize::from(pools.ban(&[addr], scope, time).is_ok_and(|done| done[0]));
    }
    Ok(restored)
}
