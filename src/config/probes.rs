//! What a pool's own target is asked, and what is expected of it: the `probe_*` keys of `[pool_NAME]`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use url::Url;

use super::defaults;
use super::keys::SectionReader;
use super::kinds::{Choice, Kind};
use super::secret::Secrecy;
use super::sections::PoolSection;
use super::values::{Header, Headers};

/// How much of the body of an answer counts, in bytes: it is read no further.
pub const MOST_PROBE_BYTES: u32 = 256 * 1024;

/// Most memory that a compiled expression may take, in bytes.
const MOST_PATTERN_BYTES: usize = 1 << 20;

/// Most bytes of all headers together.
const MOST_HEADER_BYTES: usize = 8 * 1024;

/// Headers that the probe writes itself, that concern one hop only (RFC 9110, section 7.6.1), or that would change how
/// the answer is to be read. Those that begin with `Proxy-` are forbidden, too.
const FORBIDDEN: [&str; 11] = [
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
    "accept-encoding",
    "range",
];

/// What one pool's target is asked, how often, and what its answer must be like.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolProbeConfig {
    /// What is asked for; http or https, without a login.
    pub target: Url,
    /// How.
    pub method: ProbeMethod,
    /// Sent with it.
    pub headers: Vec<Header>,
    /// The statuses that are expected; at least one range.
    pub statuses: StatusRanges,
    /// What the body must have somewhere.
    pub must_contain: Option<Pattern>,
    /// What it must have nowhere.
    pub must_not_contain: Option<Pattern>,
    /// The least length of the body, in bytes; 0: any.
    pub min_bytes: u32,
    /// From one probe of a live proxy to the next.
    pub interval: Duration,
}

impl PoolProbeConfig {
    /// Whether the same is asked and expected, however often.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        *self == Self { interval: self.interval, ..other.clone() }
    }
}

/// The method of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeMethod {
    /// The page.
    Get,
    /// Its head alone.
    Head,
    /// With an empty body.
    Post,
}

impl ProbeMethod {
    /// As it stands in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }
}

pub(super) const PROBE_METHODS: Choice<ProbeMethod> =
    Choice(&[("GET", ProbeMethod::Get), ("HEAD", ProbeMethod::Head), ("POST", ProbeMethod::Post)]);

/// Statuses and ranges of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRanges(Vec<RangeInclusive<u16>>);

impl StatusRanges {
    /// Whether `status` is one of them.
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusRanges {
    /// Every 2xx.
    fn default() -> Self {
        Self(vec![defaults::PROBE_STATUSES])
    }
}

/// `200-299, 404`.
pub(super) struct StatusList;

impl Kind for StatusList {
    type Value = StatusRanges;

    fn parse(&self, text: &str) -> Result<StatusRanges, String> {
        let items = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
        let range = |item: &str| {
            let (from, to) = item.split_once('-').unwrap_or((item, item));
            let status = |text: &str| text.parse().ok().filter(|status| (200..=599).contains(status));
            // 407 is the proxy's own word.
            let range = status(from)?..=status(to)?;
            (!range.is_empty() && range != (407..=407)).then_some(range)
        };
        let ranges = items.map(|item| {
            range(item).ok_or_else(|| {
                format!("has {item:?}, which is neither a status in 200..=599 nor a range such as 200-299")
            })
        });
        let ranges: Vec<_> = ranges.collect::<Result<_, _>>()?;
        if ranges.is_empty() { Err(format!("is not {}", self.describe())) } else { Ok(StatusRanges(ranges)) }
    }

    fn write(&self, value: &StatusRanges) -> String {
        let item = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (from, to) if from == to => from.to_string(),
            (from, to) => format!("{from}-{to}"),
        };
        value.0.iter().map(item).collect::<Vec<_>>().join(", ")
    }

    fn describe(&self) -> String {
        "HTTP statuses and ranges of them, such as 200-299, 404".to_owned()
    }
}

/// A regular expression that bodies are searched for: in time linear in the body, whatever it is.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether `body` has it somewhere.
    pub fn is_in(&self, body: &[u8]) -> bool {
        self.0.is_match(body)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

/// The text of a [`Pattern`].
pub(super) struct PatternText;

impl Kind for PatternText {
    type Value = Pattern;

    fn parse(&self, text: &str) -> Result<Pattern, String> {
        let built = RegexBuilder::new(text).size_limit(MOST_PATTERN_BYTES).build();
        built.map(Pattern).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                "is too large a regular expression: it takes more than 1 MiB".to_owned()
            }
            error => {
                // Its last line says what is wrong, those before show where.
                let text = error.to_string();
                let why = text.lines().next_back().unwrap_or_default().trim();
                format!("is not a regular expression: {}", why.strip_prefix("error: ").unwrap_or(why))
            }
        })
    }

    fn write(&self, value: &Pattern) -> String {
        value.0.as_str().to_owned()
    }

    fn describe(&self) -> String {
        "a regular expression".to_owned()
    }
}

/// Request headers, without those that the probe writes itself.
pub(super) struct ProbeHeaders;

impl Kind for ProbeHeaders {
    type Value = Vec<Header>;

    fn parse(&self, text: &str) -> Result<Vec<Header>, String> {
        let headers = Headers.parse(text)?;
        for header in &headers {
            let name = header.name.to_ascii_lowercase();
            if FORBIDDEN.contains(&name.as_str()) || name.starts_with("proxy-") {
                return Err(format!("has {}, which a probe sets itself or must not send", header.name));
            }
        }
        let bytes: usize = headers.iter().map(|one| one.name.len() + one.value.reveal().len() + 4).sum();
        if bytes > MOST_HEADER_BYTES {
            return Err(format!("has {bytes} bytes, and {MOST_HEADER_BYTES} are the most"));
        }
        Ok(headers)
    }

    fn write(&self, value: &Vec<Header>) -> String {
        Headers.write(value)
    }

    fn describe(&self) -> String {
        Headers.describe()
    }

    fn secrecy(&self) -> Secrecy {
        Headers.secrecy()
    }
}

/// Every key but the target's.
const DEPENDENT: [&str; 7] = [
    "probe_method",
    "probe_headers",
    "probe_statuses",
    "probe_must_contain",
    "probe_must_not_contain",
    "probe_min_bytes",
    "probe_interval_minutes",
];

/// What the keys of a pool's section mean together; `None` when it names no target.
pub(super) fn read(section: &PoolSection, reader: &mut SectionReader<'_>) -> Option<PoolProbeConfig> {
    const TARGET: &str = "probe_target";
    let Some(target) = &section.probe_target else {
        if !reader.is_set(TARGET) {
            for key in DEPENDENT {
                if reader.is_set_here(key) {
                    reader.report(key, format!("needs {TARGET}, the URL that this pool's probes ask for"));
                }
            }
        }
        return None;
    };
    if !target.username().is_empty() || target.password().is_some() {
        reader.report(TARGET, "has a login, which is not supported; probe_headers can send one");
    }
    if target.port() == Some(0) {
        reader.report(TARGET, "has port 0, where nobody listens");
    }
    let method = section.probe_method.unwrap_or(ProbeMethod::Get);
    if method == ProbeMethod::Head {
        for key in ["probe_must_contain", "probe_must_not_contain", "probe_min_bytes"] {
            if reader.is_set(key) {
                reader.report(key, "contradicts probe_method = HEAD, whose answers have no body");
            }
        }
    }
    Some(PoolProbeConfig {
        target: target.clone(),
        method,
        headers: section.probe_headers.clone(),
        statuses: section.probe_statuses.clone().unwrap_or_default(),
        must_contain: section.probe_must_contain.clone(),
        must_not_contain: section.probe_must_not_contain.clone(),
        min_bytes: section.probe_min_bytes.unwrap_or(0),
        interval: section.probe_interval.unwrap_or(defaults::PROBE_INTERVAL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_ones_and_ranges() {
        let ranges = StatusList.parse("200-299, 404\n 410").unwrap();
        for (status, is_in) in
            [(200, true), (299, true), (300, false), (404, true), (410, true), (405, false)]
        {
            assert_eq!(ranges.contain(status), is_in, "{status}");
        }
        assert_eq!(StatusList.write(&ranges), "200-299, 404, 410");
        for text in ["", "abc", "100", "600", "299-200", "200-", "-200", "200-700", "407", "200--299"] {
            assert!(StatusList.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_searched_for_in_bytes_and_bounded_in_size() {
        let pattern = PatternText.parse("(?i)captcha|robot").unwrap();
        assert!(pattern.is_in(b"\xff<p>Are you a ROBOT?") && !pattern.is_in(b"\xffwelcome"));
        let wrong = PatternText.parse("(captcha").unwrap_err();
        assert_eq!(wrong, "is not a regular expression: unclosed group");
        assert!(PatternText.parse(r"\p{L}{10000}").unwrap_err().contains("too large"));
    }

    #[test]
    fn headers_that_the_probe_needs_for_itself_are_named() {
        assert_eq!(ProbeHeaders.parse("User-Agent: x\nCookie: a=b").unwrap().len(), 2);
        for name in ["Host", "connection", "Proxy-Authorization", "Content-Length", "accept-encoding", "TE"] {
            let wrong = ProbeHeaders.parse(&format!("X-Ok: 1\n{name}: x")).unwrap_err();
            assert!(wrong.contains(name), "{wrong}");
        }
        assert!(ProbeHeaders.parse("no header").is_err());
        assert!(ProbeHeaders.parse(&format!("X: {}", "x".repeat(9000))).unwrap_err().contains("8192"));
    }
}
