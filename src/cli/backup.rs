//! `smartproxy backup`: through the service when it runs, from the store when it does not.

use super::{Common, FAILED, Failure, client};

pub(super) fn backup(common: &Common) -> Result<(), Failure> {
    let loaded = common.load()?;
    let config = &loaded.config;
    if crate::app::running_process(config).is_none() {
        let done = super::block_on(crate::app::backup_offline(config))?;
        return super::print(&format!("{}: {} pools, {} entries\n", done.path, done.pools, done.pairs));
    }
    match super::block_on(client::call(config, "POST", "/backup-stats"))? {
        (200, done) => {
            let path = done["path"].as_str().unwrap_or_default();
            super::print(&format!("{path}: {} pools, {} entries\n", done["sources"], done["total_proxies"]))
        }
        (status, body) => {
            let why = body["message"].as_str().or(body["error"].as_str()).unwrap_or_default();
            Err(Failure::new(FAILED, format!("status {status}: {why}")))
        }
    }
}
