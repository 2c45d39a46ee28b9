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
    #[error("{1}")]
    Unavailable(Cause, String),
}

/// What keeps a database from doing its work for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its disk has no space left.
    DiskFull,
    /// It takes nothing, and can be read.
    ReadOnly,
    /// Nobody answers at its place.
    Unreachable,
    /// It does not answer in time.
    Silent,
    /// Anything else; the text says more.
    Other,
}

impl StoreError {
    /// The cause and what to do about it, in words that name no host, user or file: for those who may see the state of
    /// the service, but not its insides.
    pub fn public_text(&self) -> &'static str {
        match self {
            Self::InUse(_) => "the database is in use by another smartproxy",
            Self::Unusable(_) => "the database cannot be used as configured: check [database]",
            Self::Unavailable(cause, _) => match cause {
                Cause::DiskFull => "the disk of the database is full: free some space",
                Cause::ReadOnly => {
                    "the database is read-only: check host in [database], or the rights of the file"
                }
                Cause::Unreachable => {
                    "the database cannot be reached: check that it runs, and host and port in [database]"
                }
                Cause::Silent => "the database does not answer in time",
                Cause::Other => "the database refuses what it is asked",
            },
        }
    }
}
