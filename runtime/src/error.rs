//! The error of everything that a front end calls: a kind to branch on, one sentence, and the cause.

use std::fmt;

/// What a front end can do about an error: mostly, which exit code to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    NotFound,
    /// A name or a resource is taken.
    Conflict,
    /// The caller asked for something that makes no sense.
    Invalid,
    /// The container is in the wrong state.
    State,
    /// Exit code 127.
    CommandNotFound,
    /// Exit code 126.
    CommandNotExecutable,
    /// The machine did not come up or broke.
    Machine,
    Unsupported,
    Internal,
}

#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    #[must_use]
    pub fn with(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The whole chain in one line, for a message that crosses a process boundary.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Gives a foreign error a kind and a sentence.
pub trait ResultExt<T> {
    /// # Errors
    /// The error with its context.
    fn context(self, message: impl FnOnce() -> String) -> Result<T, Error>;
    /// # Errors
    /// The error with its context.
    fn kind(self, kind: ErrorKind, message: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> ResultExt<T> for Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T, Error> {
        self.kind(ErrorKind::Internal, message)
    }

    fn kind(self, kind: ErrorKind, message: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::with(kind, message(), e))
    }
}
