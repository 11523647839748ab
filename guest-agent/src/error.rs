//! The failure of one request: what kind it is for the host, what was being done, and why it did not work.

use std::error::Error;

use dewar_protocol::{AgentError, ErrorKind};

/// Why a request, or a stage of a process's start, failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Failure {
    pub kind: ErrorKind,
    pub doing: String,
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(kind: ErrorKind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), source: None }
    }

    pub fn invalid(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, doing)
    }

    pub fn unsupported(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, doing)
    }

    pub fn state(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::State, doing)
    }

    /// The failure and its causes as one sentence, for the host and for the console.
    pub fn sentence(&self) -> String {
        let mut text = self.doing.clone();
        let mut next = self.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl From<Failure> for AgentError {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind, message: failure.sentence() }
    }
}

/// Says what was being done when a call failed.
pub trait Doing<T> {
    /// An [`ErrorKind::Internal`] failure with the sentence of `doing`.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;

    /// A failure of the given kind.
    fn doing_as(self, kind: ErrorKind, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.doing_as(ErrorKind::Internal, doing)
    }

    fn doing_as(self, kind: ErrorKind, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Failure { kind, doing: doing(), source: Some(e.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_every_cause_once() {
        let failed: std::result::Result<(), _> = Err(std::io::Error::from_raw_os_error(libc::ENOENT));
        let failure = failed.doing(|| "Opening the disk failed".into()).expect_err("an error");
        assert_eq!(failure.sentence(), "Opening the disk failed: No such file or directory (os error 2)");
        assert_eq!(failure.kind, ErrorKind::Internal);
    }
}
