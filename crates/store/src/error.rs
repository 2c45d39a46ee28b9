//! What can go wrong, told by what the caller can do about it.

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open: text names the database, and the process when known.
    #[error("{0}")]
    InUse(String),
    /// It cannot be opened at all as configured: the text names the file or server and what to do.
    #[error("{0}")]
    Unusable(String),
    /// It does not answer now, or refused: trying the same again later may succeed.
    #[error("{0}")]
    Unavailable(String),
}
