//! One MaxMind DB file, whole in memory: a file that is replaced or cut short meanwhile changes nothing.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use maxminddb::{Reader, WithinOptions};
use serde::Deserialize;

/// Largest file that is read, in bytes. The largest ones that are sold, with cities, have some 130 MB.
const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// Networks that are read to see whether a file is broken, or of another kind.
const SAMPLED: usize = 10_000;
/// The longest name of an organisation, in characters. What is longer is cut.
const LONGEST_NAME: usize = 120;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Countries,
    Networks,
}

/// Who runs a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its number (autonomous system, RFC 6793).
    pub number: u32,
    /// The organisation's name, at most 120 characters; text of a third party.
    pub organisation: Option<String>,
}

/// A file.
#[derive(Debug)]
pub(super) struct Database(Reader<Vec<u8>>);

#[derive(Deserialize)]
struct CountryRecord<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    #[serde(borrow)]
    registered_country: Option<Country<'a>>,
}

#[derive(Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct NetworkRecord<'a> {
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<&'a str>,
}

impl CountryRecord<'_> {
    fn code(&self) -> Option<[u8; 2]> {
        let code = |country: &Option<Country<'_>>| country.as_ref()?.iso_code?.as_bytes().try_into().ok();
        let code: [u8; 2] = code(&self.country).or_else(|| code(&self.registered_country))?;
        code.iter().all(u8::is_ascii_uppercase).then_some(code)
    }
}

impl Database {
    /// Reads the file at `path`. Blocks.
    ///
    /// # Errors
    /// What is wrong with it, without its name.
    pub(super) fn read(path: &Path, kind: Kind) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "is no file");
        ensure!(metadata.len() <= MOST_BYTES, "is larger than {MOST_BYTES} bytes");
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 == metadata.len(), "changed while it was read");
        Self::parse(bytes, kind)
    }

    fn parse(bytes: Vec<u8>, kind: Kind) -> anyhow::Result<Self> {
        let reader = Reader::from_source(bytes).context("is no MaxMind DB file, or a broken one")?;
        let database = Self(reader);
        if !database.has_any(kind).context("is a broken MaxMind DB file")? {
            let of = &database.0.metadata().database_type;
            let what = match kind {
                Kind::Countries => "countries (country.iso_code)",
                Kind::Networks => "networks (autonomous_system_number)",
            };
            bail!("has no {what} in it: its type is {of:?}");
        }
        Ok(database)
    }

    /// Whether the first networks say anything of this kind.
    fn has_any(&self, kind: Kind) -> Result<bool, maxminddb::MaxMindDbError> {
        let mut found = false;
        for network in self.0.networks(WithinOptions::default())?.take(SAMPLED) {
            let network = network?;
            found |= match kind {
                Kind::Countries => {
                    network.decode::<CountryRecord<'_>>()?.is_some_and(|one| one.code().is_some())
                }
                Kind::Networks => network
                    .decode::<NetworkRecord<'_>>()?
                    .is_some_and(|one| one.autonomous_system_number.is_some()),
            };
        }
        Ok(found)
    }

    /// What it says of an address; a broken record says nothing.
    pub(super) fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        self.0.lookup(address.to_canonical()).ok()?.decode::<CountryRecord<'_>>().ok()??.code()
    }

    pub(super) fn network(&self, address: IpAddr) -> Option<Network> {
        let record = self.0.lookup(address.to_canonical()).ok()?.decode::<NetworkRecord<'_>>().ok()??;
        let name = record.autonomous_system_organization.filter(|name| !name.is_empty());
        Some(Network {
            number: record.autonomous_system_number?,
            organisation: name.map(|name| name.chars().take(LONGEST_NAME).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use serde_json::json;
    use smartproxy_testkit::mmdb;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn countries() -> Vec<u8> {
        mmdb::countries(&[("198.51.100.0/24", "DE"), ("198.51.100.128/25", "US"), ("2001:db8::/32", "FR")])
    }

    #[test]
    fn countries_are_found_by_the_longest_network() {
        let database = Database::parse(countries(), Kind::Countries).unwrap();
        for (address, country) in [
            ("198.51.100.7", Some(*b"DE")),
            ("198.51.100.200", Some(*b"US")),
            ("2001:db8::1", Some(*b"FR")),
            ("::ffff:198.51.100.7", Some(*b"DE")),
            ("203.0.113.1", None),
            ("2001:db9::1", None),
        ] {
            assert_eq!(database.country(ip(address)), country, "{address}");
        }
    }

    #[test]
    fn a_record_without_a_country_has_that_of_its_owner_or_none() {
        let file = mmdb::mmdb(
            "Test",
            &[
                ("192.0.2.0/25", json!({ "registered_country": { "iso_code": "CH" } })),
                ("192.0.2.128/25", json!({ "country": { "iso_code": "xx?" } })),
                ("198.51.100.0/24", json!({ "continent": { "code": "EU" } })),
            ],
        );
        let database = Database::parse(file, Kind::Countries).unwrap();
        assert_eq!(database.country(ip("192.0.2.1")), Some(*b"CH"));
        assert_eq!(database.country(ip("192.0.2.200")), None);
        assert_eq!(database.country(ip("198.51.100.1")), None);
    }

    #[test]
    fn networks_have_a_number_and_a_name_of_bounded_length() {
        let long = "x".repeat(200);
        let file =
            mmdb::organisations(&[("198.51.100.0/24", 64_500, "Example Net"), ("203.0.113.0/24", 7, &long)]);
        let database = Database::parse(file, Kind::Networks).unwrap();
        let found = database.network(ip("198.51.100.9")).unwrap();
        assert_eq!((found.number, found.organisation.as_deref()), (64_500, Some("Example Net")));
        assert_eq!(database.network(ip("203.0.113.9")).unwrap().organisation.unwrap().len(), LONGEST_NAME);
        assert_eq!(database.network(ip("192.0.2.1")), None);
    }

    #[test]
    fn a_file_of_another_kind_is_refused_by_name() {
        let error = Database::parse(countries(), Kind::Networks).unwrap_err().to_string();
        assert!(error.contains("no networks") && error.contains("Test-Country"), "{error}");
        let file = mmdb::organisations(&[("198.51.100.0/24", 1, "a")]);
        assert!(Database::parse(file, Kind::Countries).unwrap_err().to_string().contains("Test-ASN"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_or_answers_and_never_more() {
        let whole = countries();
        for length in 0..whole.len() {
            let error = Database::parse(whole[..length].to_vec(), Kind::Countries);
            assert!(error.is_err(), "cut at {length} of {}", whole.len());
        }
    }

    #[test]
    fn a_file_with_any_bytes_broken_is_refused_or_answers() {
        let whole = countries();
        let mut rng = rand::rngs::SmallRng::seed_from_u64(5);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut broken = whole.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..broken.len());
                broken[at] = rng.random();
            }
            match Database::parse(broken, Kind::Countries) {
                Err(_) => refused += 1,
                Ok(database) => {
                    for _ in 0..4 {
                        database.country(IpAddr::from(rng.random::<u32>().to_be_bytes()));
                        database.country(IpAddr::from(rng.random::<u128>().to_be_bytes()));
                    }
                    database.country(ip("198.51.100.7"));
                }
            }
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Database::read(folder.path(), Kind::Countries).is_err());
        let path = folder.path().join("huge.mmdb");
        let file = File::create(&path).unwrap();
        file.set_len(MOST_BYTES + 1).unwrap();
        let error = Database::read(&path, Kind::Countries).unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
    }
}
