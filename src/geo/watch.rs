//! Files that come, change and go while the service runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::Geo;
use super::database::{Database, Kind};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// One file as it was last looked at, so that it is read, and complained of, once.
#[derive(Debug, Default)]
pub(super) struct Watched {
    path: Option<PathBuf>,
    /// Time of the last change, size, and place on the disk; `None`: it was not there.
    stamp: Option<(SystemTime, u64, u64)>,
}

impl Geo {
    /// Waits until it is time to look at the files again: a minute, or until others are named.
    pub async fn wait(&self) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }

    /// Reads the files that are new or have changed. Returns whether countries may be others now. Blocks.
    pub fn refresh(&self) -> bool {
        let config = self.config.load();
        let mut watched = self.watched.lock();
        let [countries, networks] = &mut *watched;
        look("asn_db", Kind::Networks, config.asn_db.as_deref(), networks, &self.networks);
        look("country_db", Kind::Countries, config.country_db.as_deref(), countries, &self.countries)
    }
}

/// Looks at one file. Whether another one is in use now.
fn look(
    key: &str,
    kind: Kind,
    path: Option<&Path>,
    watched: &mut Watched,
    in_use: &ArcSwapOption<Database>,
) -> bool {
    let is_same_path = watched.path.as_deref() == path;
    let Some(path) = path else {
        *watched = Watched::default();
        return in_use.swap(None).is_some();
    };
    let found = fs::metadata(path).and_then(|found| Ok((found.modified()?, found.len(), found.ino())));
    let stamp = found.as_ref().ok().copied();
    if is_same_path && watched.stamp == stamp {
        return false;
    }
    *watched = Watched { path: Some(path.to_owned()), stamp };
    let read = match found {
        Ok(_) => Database::read(path, kind),
        Err(error) => Err(error.into()),
    };
    match read {
        Ok(database) => {
            in_use.store(Some(Arc::new(database)));
            tracing::info!("[geo] {key}: {} is in use", path.display());
            true
        }
        Err(error) => {
            let rest = match (in_use.load().is_some(), kind) {
                (true, _) => "what was read before stays in use",
                (false, Kind::Countries) => "countries are as they were saved",
                (false, Kind::Networks) => "networks are unknown",
            };
            tracing::warn!("[geo] {key}: {}: {error:#}; {rest}", path.display());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use smartproxy_testkit::mmdb;

    use super::*;
    use crate::config::GeoConfig;

    const DE: &[(&str, &str)] = &[("198.51.100.0/24", "DE")];

    /// Writes a file whose stamp differs from that of the one before.
    fn write(path: &Path, bytes: &[u8], minute: u64) {
        fs::write(path, bytes).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + 60 * minute);
        fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn a_file_may_come_change_break_and_go_and_what_was_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        let geo = Geo::new(GeoConfig { country_db: Some(path.clone()), asn_db: None });
        let country = || geo.country("198.51.100.7".parse().unwrap());
        assert!(!geo.refresh() && country().is_none(), "missing");
        let good = mmdb::countries(DE);
        write(&path, &good, 1);
        assert!(geo.refresh());
        assert_eq!(country(), Some(*b"DE"));
        assert!(!geo.refresh(), "nothing new");
        write(&path, &good[..good.len() / 2], 2);
        assert!(!geo.refresh());
        assert_eq!(country(), Some(*b"DE"), "cut short");
        fs::remove_file(&path).unwrap();
        assert!(!geo.refresh());
        assert_eq!(country(), Some(*b"DE"), "gone");
        write(&path, &mmdb::countries(&[("198.51.100.0/24", "FR")]), 3);
        assert!(geo.refresh());
        assert_eq!(country(), Some(*b"FR"));
        geo.configure(GeoConfig { country_db: None, asn_db: None });
        assert!(geo.refresh());
        assert_eq!(country(), None, "switched off");
    }
}
