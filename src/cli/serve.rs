//! `smartproxy serve`.

use super::{Common, Failure};
use crate::app;
use crate::config::LogLevel;

pub(super) fn serve(common: &Common) -> Result<(), Failure> {
    let mut loaded = common.load()?;
    if common.debug {
        loaded.config.logging.level = LogLevel::Debug;
    }
    for warning in &loaded.warnings {
        eprintln!("smartproxy: warning: {warning}");
    }
    let logging = &loaded.config.logging;
    let logging = crate::telemetry::start(logging.level, logging.format, &logging.dir)?;
    for warning in &loaded.warnings {
        tracing::debug!("configuration: {warning}");
    }
    super::block_on(app::run(loaded, common.config.clone(), logging.recent.clone()))?;
    Ok(())
}
