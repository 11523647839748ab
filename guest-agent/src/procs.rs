//! Rows of `top`.
use dewar_protocol::ProcessInfo;

/// Processes that ended meanwhile are left out. `user` is the uid in decimal.
pub fn list(pids: &[u32]) -> Vec<ProcessInfo> {
    todo!("{pids:?}")
}
