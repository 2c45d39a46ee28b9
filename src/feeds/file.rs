//! Feeds that are files of this machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::body::{Body, ContentEncoding};
use super::error::FetchFailure;
use super::fetch::Fetched;

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Reads the file at `path`, plain or gzip, up to `limit_bytes`. Blocks.
///
/// Its validator is its size and time of last change, so that a file that did not change is not read again.
pub(super) fn read(path: &Path, etag: Option<&str>, limit_bytes: u64) -> Result<Fetched, FetchFailure> {
    // The path is the operator's, but it is not repeated here: the log has the feed's name, and some paths say more.
    let explain = |error: io::Error| FetchFailure::File(error.to_string());
    // Before it is opened: a pipe without a writer would keep us waiting for ever, a device has no end.
    let known = fs::metadata(path).map_err(explain)?;
    if !known.is_file() {
        return Err(FetchFailure::File("not a regular file".to_owned()));
    }
    let changed =
        known.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let validator = format!("file-{}-{}", known.len(), changed.as_nanos());
    if etag == Some(&validator) {
        return Ok(Fetched::NotModified);
    }
    let mut file = File::open(path).map_err(explain)?;
    let mut body = Body::new(ContentEncoding::ByMagic, limit_bytes);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => body.push(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(explain(error)),
        }
    }
    Ok(Fetched::List {
        wire_bytes: body.wire_bytes(),
        bytes: body.finish()?,
        etag: Some(validator),
        last_modified: None,
    })
}
