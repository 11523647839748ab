//! OCI `linux.seccomp` to a filter program.
use oci_spec::runtime::LinuxSeccomp;

#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("Unsupported: {what}")]
    Unsupported { what: &'static str },
}

#[derive(Debug)]
pub struct Program {}

impl Program {
    pub fn compile(seccomp: &LinuxSeccomp) -> Result<Self, SeccompError> {
        todo!("{seccomp:?}")
    }
    /// seccomp(2); allocates nothing. Needs no_new_privs or CAP_SYS_ADMIN.
    pub fn install(&self) -> rustix::io::Result<()> {
        todo!()
    }
}
