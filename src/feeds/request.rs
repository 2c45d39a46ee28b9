//! What to fetch.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use url::Url;

use super::error::FetchFailure;

/// One fetch of one feed. `Debug` shows neither logins nor header values.
#[derive(Clone, Default)]
pub struct FeedRequest {
    /// The feed's name, for messages.
    pub name: String,
    /// `http://`, `https://` or `file://`, or a path.
    pub url: String,
    /// Headers to send, as name and value. A redirect to another host drops them.
    pub headers: Vec<(String, String)>,
    /// `ETag` of the list that is known.
    pub etag: Option<String>,
    /// `Last-Modified` of the list that is known.
    pub last_modified: Option<String>,
    /// Whether a redirect may lead to a special-purpose address ([`smartproxy_core::special`]). The URL itself may
    /// always: it is the operator's.
    pub allow_special: bool,
}

impl fmt::Debug for FeedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("FeedRequest")
            .field("name", &self.name)
            .field("url", &mask_url(&self.url))
            .field("headers", &names)
            .field("etag", &self.etag)
            .field("last_modified", &self.last_modified)
            .field("allow_special", &self.allow_special)
            .finish()
    }
}

/// Where a URL leads.
pub(super) enum Place {
    Web(Url),
    File(PathBuf),
}

impl FeedRequest {
    pub(super) fn place(&self) -> Result<Place, FetchFailure> {
        let unsendable = |text: &str| FetchFailure::Unsendable(text.to_owned());
        if !self.url.contains("://") {
            return if self.url.is_empty() {
                Err(unsendable("url is empty"))
            } else {
                Ok(Place::File(PathBuf::from(&self.url)))
            };
        }
        let url = Url::parse(&self.url).map_err(|error| FetchFailure::Unsendable(format!("url: {error}")))?;
        match url.scheme() {
            "http" | "https" => Ok(Place::Web(url)),
            "file" => url
                .to_file_path()
                .map(Place::File)
                .map_err(|()| unsendable("url: not a file of this machine")),
            _ => Err(unsendable("url: neither http, https, file nor a path")),
        }
    }
}

/// `url` as it may be logged: the login and the values of the query are `***`, the fragment is gone. A path to a file
/// stays as it is. Secrets in the path of a URL are not known as such, and stay.
///
/// ```
/// use smartproxy::feeds::request::mask_url;
/// assert_eq!(mask_url("https://me:pw@example.com/l?key=k1&x"), "https://***@example.com/l?key=***&x");
/// ```
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split('#').next().unwrap_or_default();
    let (before_query, query) =
        rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let (authority, path) = before_query.split_at(before_query.find('/').unwrap_or(before_query.len()));
    let mut masked = format!("{scheme}://");
    match authority.rsplit_once('@') {
        // In a URL that is not well-formed the login may reach beyond the first slash.
        None if path.contains('@') => return masked + "***",
        None => masked.push_str(authority),
        Some((_, host)) => {
            let _ = write!(masked, "***@{host}");
        }
    }
    masked.push_str(path);
    for (at, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        masked.push(if at == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, _)) => {
                let _ = write!(masked, "{key}=***");
            }
            None => masked.push_str(pair),
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_url_shows_neither_login_nor_query_values() {
        for (url, masked) in [
            ("http://example.com/list.txt", "http://example.com/list.txt"),
            (
                "http://me:s3cret@example.com:81/a?b=s3cret&c=s3cret#s3cret",
                "http://***@example.com:81/a?b=***&c=***",
            ),
            ("http://s3cret@example.com?k=s3cret", "http://***@example.com?k=***"),
            ("http://me:s3@cret@example.com/", "http://***@example.com/"),
            ("http://me:s3/cret@example.com/", "http://***"),
            ("./lists/a b.txt", "./lists/a b.txt"),
            ("file:///srv/list.txt", "file:///srv/list.txt"),
        ] {
            assert_eq!(mask_url(url), masked);
        }
    }

    #[test]
    fn debug_shows_no_secrets() {
        let request = FeedRequest {
            url: "http://me:s3cret@example.com/?k=s3cret".to_owned(),
            headers: vec![("Authorization".to_owned(), "Bearer s3cret".to_owned())],
            ..FeedRequest::default()
        };
        let text = format!("{request:?}");
        assert!(text.contains("Authorization") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn urls_and_paths_are_told_apart() {
        let place = |url: &str| FeedRequest { url: url.to_owned(), ..FeedRequest::default() }.place();
        assert!(matches!(place("HTTP://example.com"), Ok(Place::Web(_))));
        assert!(
            matches!(place("file:///a/b"), Ok(Place::File(path)) if path == std::path::Path::new("/a/b"))
        );
        assert!(matches!(place("./a:b"), Ok(Place::File(_))));
        for url in ["", "ftp://example.com/", "http://", "http://[::1/", "file://host.example.com/a"] {
            assert!(matches!(place(url), Err(FetchFailure::Unsendable(_))), "{url}");
        }
    }
}
