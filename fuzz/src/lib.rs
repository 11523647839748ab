//! The guest agent's parsers, for the fuzz targets: the agent is a binary, which a target cannot link.
//!
//! Run one with `cargo +nightly fuzz run users` in the repository's root.

#[path = "../../guest-agent/src/child"]
pub mod child {
    pub mod paths;
}
#[path = "../../guest-agent/src/seccomp/mod.rs"]
pub mod seccomp;
#[path = "../../guest-agent/src/users.rs"]
pub mod users;
