//! `smartproxy backup`: through the service when it runs, from the store when it does not.

use super::{Common, FAILED, Failure, client};

pub(super) fn backup(common: &Common) -> Result<(), Failure> {
    let loaded = common.load()?;
    let config = &loaded.config;
    if crate::app::running_process(config).is_none() {
        let done = super::block_on(crate::app::backup_offline(config))?;
        println!("{}: {} pools, {} entries", done.path, done.pools, done.pairs);
        return Ok(());
    }
    match super::block_on(client::call(config, "POST", "/backup-stats"))? {
        (200, done) => {
            let path = done["path"].as_str().unwrap_or_default();
            println!("{path}: {} pools, {} entries", done["sources"], done["total_proxies"]);
            Ok(())
        }
        (status, body) => {
            let why = body["message"].as_str().or(body["error"].as_str()).unwrap_or_default();
            Err(Failure::new(FAILED, format!("status {status}: {why}")))
        }
    }
}
