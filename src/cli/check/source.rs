//! Where lists come from: files, URLs, standard input; any number of them, every proxy once.

use std::fmt;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read};

use anyhow::{Context as _, bail, ensure};
use flate2::read::MultiGzDecoder;
use hashbrown::{DefaultHashBuilder, HashTable};
use smartproxy_core::list::{self, ListOptions, ListVerdict, ParsedList};
use smartproxy_core::{Protocol, ProxyAddr};

use crate::feeds::fetch::{Fetched, Fetcher};
use crate::feeds::request::{FeedRequest, mask_url};

/// Longest list from a file or standard input, in bytes, decompressed: room for ten million proxies.
const MAX_BYTES: u64 = 256 << 20;
/// The most proxies of one list.
const MAX_PROXIES: usize = 10_000_000;

/// How lists are read.
pub(super) struct Reading<'a> {
    /// What entries are that name no protocol; at least one.
    pub(super) protocols: &'a [Protocol],
    /// Only these are taken; empty: all.
    pub(super) only: &'a [Protocol],
    pub(super) allow_special: bool,
    pub(super) fetcher: &'a Fetcher,
}

/// Proxies in the order of their first mention, each once.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) proxies: Vec<ProxyAddr>,
    /// Positions in `proxies`, by identity.
    known: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Entries {
    /// Where `proxy` stands.
    pub(super) fn position(&self, proxy: &ProxyAddr) -> Option<u32> {
        let is_it = |at: &u32| self.proxies[*at as usize] == *proxy;
        self.known.find(self.hasher.hash_one(proxy), is_it).copied()
    }

    /// Whether it is new.
    fn add(&mut self, proxy: ProxyAddr) -> anyhow::Result<bool> {
        if self.position(&proxy).is_some() {
            return Ok(false);
        }
        let at = u32::try_from(self.proxies.len()).context("more than four thousand million proxies")?;
        let Self { proxies, known, hasher } = self;
        known.insert_unique(hasher.hash_one(&proxy), at, |at| hasher.hash_one(&proxies[*at as usize]));
        proxies.push(proxy);
        Ok(true)
    }
}

/// What one list gave.
pub(super) struct Given {
    pub(super) listed: usize,
    /// Not in `entries` before.
    pub(super) new: usize,
    /// Entries of other protocols than are wanted.
    pub(super) left_out: usize,
    pub(super) parsed: ParsedList,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} proxies", self.listed)?;
        if self.new != self.listed {
            write!(f, ", {} to probe", self.new)?;
        }
        if self.parsed.rejected.total() > 0 {
            write!(f, "; refused: {}", self.parsed.rejected)?;
        }
        if self.parsed.truncated {
            write!(f, "; what comes behind {MAX_PROXIES} proxies is not read")?;
        }
        Ok(())
    }
}

impl Reading<'_> {
    /// Reads `source` into `entries`.
    ///
    /// # Errors
    /// It cannot be read, or has no proxies; names it.
    pub(super) async fn read(&self, source: &str, entries: &mut Entries) -> anyhow::Result<Given> {
        let bytes = self.bytes(source).await.with_context(|| shown(source))?;
        let options = |protocol| ListOptions {
            default_protocol: Some(protocol),
            allow_special: self.allow_special,
            max_proxies: MAX_PROXIES,
        };
        let mut given: Option<Given> = None;
        // Entries that name their protocol come up in every pass, and count in the first.
        for protocol in self.protocols {
            let mut parsed = list::parse(&bytes, &options(*protocol));
            let (listed, mut new, mut left_out) = (parsed.proxies.len(), 0, 0);
            for proxy in std::mem::take(&mut parsed.proxies) {
                if !self.only.is_empty() && !self.only.contains(&proxy.protocol()) {
                    left_out += 1;
                } else if entries.add(proxy)? {
                    new += 1;
                }
            }
            match &mut given {
                None => {
                    given = Some(Given { listed, new, left_out, parsed });
                }
                Some(given) => given.new += new,
            }
        }
        given.context("no protocol to read it with")
    }

    async fn bytes(&self, source: &str) -> anyhow::Result<Vec<u8>> {
        if source == "-" {
            return read_all(io::stdin().lock());
        }
        if !source.contains("://") {
            return read_all(File::open(source)?);
        }
        let request = FeedRequest {
            name: mask_url(source),
            url: source.to_owned(),
            allow_special: self.allow_special,
            ..FeedRequest::default()
        };
        match self.fetcher.fetch(&request).await.map_err(|error| error.cause)? {
            Fetched::List { bytes, .. } => Ok(bytes),
            Fetched::NotModified => bail!("it says that it has not changed, to somebody who has nothing"),
        }
    }
}

/// All of `input`, plain or gzip.
fn read_all(input: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut input = BufReader::new(input);
    let is_gzip = input.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) };
    let mut bytes = Vec::new();
    plain.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MAX_BYTES, "larger than {MAX_BYTES} bytes");
    Ok(bytes)
}

/// The lists to read: standard input when none is named and somebody writes to it.
pub(super) fn named(sources: &[String]) -> Option<Vec<String>> {
    match sources {
        [] if io::stdin().is_terminal() => None,
        [] => Some(vec!["-".to_owned()]),
        _ => Some(sources.to_vec()),
    }
}

/// How a source is named in messages.
pub(super) fn shown(source: &str) -> String {
    if source == "-" { "standard input".to_owned() } else { mask_url(source) }
}

/// Why a list gave nothing.
pub(super) fn why_nothing(given: &Given) -> String {
    let rejected = &given.parsed.rejected;
    match given.parsed.verdict() {
        ListVerdict::Empty => "it is empty".to_owned(),
        ListVerdict::ErrorPage => "it is a web page without proxies".to_owned(),
        _ if given.left_out > 0 => format!("none of its {} proxies is of a wanted protocol", given.left_out),
        _ => format!("no proxies found (refused: {rejected})"),
    }
}
