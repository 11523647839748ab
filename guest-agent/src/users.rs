//! docker's `user[:group]` against a root filesystem.
use std::os::fd::BorrowedFd;

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

/// `root`: the container's root directory (O_PATH will do). Empty `user` is root.
pub fn lookup(root: BorrowedFd<'_>, user: &str) -> Result<Identity, UserError> {
    todo!("{root:?} {user}")
}

/// HOME of a numeric uid, for processes whose ids come from the spec ("/" without an entry).
pub fn home_of(root: BorrowedFd<'_>, uid: u32) -> Result<String, UserError> {
    todo!("{root:?} {uid}")
}
