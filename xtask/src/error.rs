//! One error type for the whole tool: a sentence for the reader and an exit code for the caller.

use std::fmt;
use std::io;
use std::path::Path;

/// What every command of this tool returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in words that say what to do next where that is known.
#[derive(Debug)]
pub struct Error {
    message: String,
    exit_code: u8,
}

/// As `timeout(1)` has it.
const TIMED_OUT: u8 = 124;
const USAGE: u8 = 2;

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 1 }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: USAGE }
    }

    pub fn timed_out(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: TIMED_OUT }
    }

    /// An operation on a file, and how it failed.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(format!("cannot {doing} {}: {error}", path.display()))
    }

    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Self {
        Self::usage(error.to_string())
    }
}
