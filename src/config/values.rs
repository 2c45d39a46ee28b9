//! Values that are ours alone: thresholds, time zones, where a feed is, request headers.

use std::fmt;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use percent_encoding::percent_decode_str;
use url::Url;

use super::kinds::{HttpUrl, Kind};
use super::secret::{Secrecy, Secret, mask_logins};

/// How many of the validation targets a proxy must pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SuccessThreshold {
    /// That many, at least 1.
    Count(u32),
    /// That share of them, above 0 and below 1.
    Share(f64),
}

impl SuccessThreshold {
    /// The count for that many targets: at least 1 and at most all of them.
    pub fn needed(self, targets: usize) -> usize {
        let count = match self {
            Self::Count(count) => count as usize,
            Self::Share(share) => (share * targets as f64).ceil() as usize,
        };
        count.min(targets).max(1)
    }
}

/// A count, or a share between 0 and 1.
pub(super) struct Threshold;

impl Kind for Threshold {
    type Value = SuccessThreshold;

    fn parse(&self, text: &str) -> Result<SuccessThreshold, String> {
        match text.parse::<f64>() {
            Ok(share) if share > 0.0 && share < 1.0 => Ok(SuccessThreshold::Share(share)),
            Ok(count) if count.fract() == 0.0 && (1.0..=1000.0).contains(&count) => {
                Ok(SuccessThreshold::Count(count as u32))
            }
            _ => Err(format!("is not {}", self.describe())),
        }
    }

    fn write(&self, value: &SuccessThreshold) -> String {
        match value {
            SuccessThreshold::Count(count) => count.to_string(),
            SuccessThreshold::Share(share) => share.to_string(),
        }
    }

    fn describe(&self) -> String {
        "a count in 1..=1000, or a share above 0 and below 1".to_owned()
    }
}

/// A time zone of the IANA database.
pub(super) struct Zone;

impl Kind for Zone {
    type Value = TimeZone;

    fn parse(&self, text: &str) -> Result<TimeZone, String> {
        TimeZone::get(text).map_err(|_| format!("is not {}", self.describe()))
    }

    fn write(&self, value: &TimeZone) -> String {
        value.iana_name().unwrap_or_default().to_owned()
    }

    fn describe(&self) -> String {
        "an IANA time zone, such as Europe/Berlin".to_owned()
    }
}

/// Where a feed is. Prints without the login of a URL.
#[derive(Clone, PartialEq, Eq)]
pub enum FeedLocation {
    /// An http or https URL.
    Http(Url),
    /// A file, relative to the working directory.
    File(PathBuf),
}

impl fmt::Display for FeedLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(&mask_logins(url.as_str())),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for FeedLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An http, https or file URL, or a path.
pub(super) struct FeedUrl;

impl Kind for FeedUrl {
    type Value = FeedLocation;

    fn parse(&self, text: &str) -> Result<FeedLocation, String> {
        let wrong = || format!("is not {}", self.describe());
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(wrong());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(FeedLocation::File(text.into()));
        };
        if !scheme.eq_ignore_ascii_case("file") {
            return HttpUrl.parse(text).map(FeedLocation::Http).map_err(|_| wrong());
        }
        // RFC 8089 knows absolute paths alone; `file://lists/a.txt` is forgiven as a relative one.
        let path = rest.strip_prefix("localhost/").map_or_else(|| rest.to_owned(), |path| format!("/{path}"));
        let path = percent_decode_str(&path).decode_utf8().map_err(|_| wrong())?;
        if path.is_empty() { Err(wrong()) } else { Ok(FeedLocation::File(path.as_ref().into())) }
    }

    fn write(&self, value: &FeedLocation) -> String {
        match value {
            FeedLocation::Http(url) => url.to_string(),
            FeedLocation::File(path) => path.display().to_string(),
        }
    }

    fn describe(&self) -> String {
        "an http, https or file URL, or a path".to_owned()
    }
}

/// One header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// A token of RFC 9110, section 5.6.2.
    pub name: String,
    /// Printable text and tabs (RFC 9110, section 5.5); may hold a key, so it is not printed.
    pub value: Secret,
}

/// One `Name: value` per line.
pub(super) struct Headers;

impl Kind for Headers {
    type Value = Vec<Header>;

    fn parse(&self, text: &str) -> Result<Vec<Header>, String> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let one = |(at, line): (usize, &str)| {
            let (name, value) = line.split_once(':').unwrap_or(("", ""));
            let is_good = !name.is_empty() && name.chars().all(is_token);
            let is_text = !value.chars().any(|c| c.is_control() && c != '\t');
            if is_good && is_text {
                Ok(Header { name: name.to_owned(), value: Secret::new(value.trim()) })
            } else {
                Err(format!("has in header {} something else than \"Name: value\"", at + 1))
            }
        };
        text.split('\n').map(str::trim).filter(|line| !line.is_empty()).enumerate().map(one).collect()
    }

    fn write(&self, value: &Vec<Header>) -> String {
        let lines = value.iter().map(|header| format!("{}: {}", header.name, header.value.reveal()));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn describe(&self) -> String {
        "one \"Name: value\" per line, the lines indented".to_owned()
    }

    fn secrecy(&self) -> Secrecy {
        Secrecy::HeaderValues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_count_or_a_share() {
        let needed = |text, targets| Threshold.parse(text).unwrap().needed(targets);
        assert_eq!(needed("1", 3), 1);
        assert_eq!(needed("2.0", 3), 2);
        assert_eq!(needed("9", 3), 3);
        assert_eq!(needed("0.5", 3), 2);
        assert_eq!(needed("0.01", 3), 1);
        for text in ["0", "-1", "1.5", "", "nan", "inf", "all"] {
            assert!(Threshold.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_feed_is_a_url_or_a_file() {
        let read = |text| FeedUrl.parse(text).unwrap();
        assert_eq!(read("HTTPS://h/x"), FeedLocation::Http("https://h/x".parse().unwrap()));
        for (text, path) in [
            ("lists/a.txt", "lists/a.txt"),
            ("/srv/a b.txt", "/srv/a b.txt"),
            ("file:///srv/a%20b.txt", "/srv/a b.txt"),
            ("file://localhost/srv/a", "/srv/a"),
            ("FILE://lists/a.txt", "lists/a.txt"),
        ] {
            assert_eq!(read(text), FeedLocation::File(path.into()), "{text}");
        }
        for text in ["", "ftp://h/x", "http://", "socks5://h:1", "file://", "a\nb"] {
            assert!(FeedUrl.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_location_prints_without_its_login() {
        let location = FeedUrl.parse("http://me:key@h/x").unwrap();
        assert_eq!(format!("{location} {location:?}"), "http://***@h/x http://***@h/x");
    }

    #[test]
    fn headers_stand_one_per_line() {
        let headers = Headers.parse("\nAuthorization: Bearer a:b\n X-Key:1 \n\nX-Empty:").unwrap();
        let lines: Vec<_> = headers.iter().map(|h| (h.name.as_str(), h.value.reveal())).collect();
        assert_eq!(lines, [("Authorization", "Bearer a:b"), ("X-Key", "1"), ("X-Empty", "")]);
        for text in ["no colon", ": x", "A B: x", "X: a\0"] {
            assert!(Headers.parse(text).unwrap_err().contains("header 1"), "{text}");
        }
    }

    #[test]
    fn time_zones_are_known_by_name() {
        assert!(Zone.parse("Europe/Berlin").is_ok());
        assert!(Zone.parse("Europe/Atlantis").is_err());
    }
}
