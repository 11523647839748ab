//! Container cgroups.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dewar_protocol::Stats;
use oci_spec::runtime::LinuxResources;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("Unsupported: {what}")]
    Unsupported { what: &'static str },
}

pub fn mount_and_delegate() -> Result<(), CgroupError> {
    todo!()
}

#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
}

impl Cgroup {
    pub fn create(id: &str, resources: Option<&LinuxResources>) -> Result<Self, CgroupError> {
        todo!("{id} {resources:?}")
    }
    pub fn dir_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
    pub fn update(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        todo!("{resources:?}")
    }
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        todo!()
    }
    pub fn freeze(&self) -> Result<(), CgroupError> {
        todo!()
    }
    pub fn thaw(&self) -> Result<(), CgroupError> {
        todo!()
    }
    /// SIGKILL to every process in it.
    pub fn kill(&self) -> Result<(), CgroupError> {
        todo!()
    }
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        todo!()
    }
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        todo!()
    }
    /// Removes it and its sub-groups, once empty (waits, bounded).
    pub fn remove(&self) -> Result<(), CgroupError> {
        todo!()
    }
}
