//! OCI `linux.seccomp` as a filter program (seccomp(2)), with the meaning that runc and libseccomp give it.
//!
//! - Entries apply in their order, and the first that matches decides. The conditions of an entry must all hold; when two
//!   of them look at the same argument, each is an entry of its own, as with runc. Names that no table knows are ignored.
//! - x86_64 is always filtered. 32-bit x86 and x32 are filtered by their own numbers when `architectures` names them, and
//!   their calls kill the thread when it does not. Other architectures cannot occur here and are ignored.
//! - 32-bit programs can reach sockets and System V IPC through `socketcall` and `ipc`: an entry without conditions covers
//!   these ways too; one with conditions cannot, because the arguments are in memory.
//! - A call that is newer than any that the section names returns ENOSYS instead of a restrictive default action, so that
//!   programs fall back to what the section's author knew (as runc does).
//! - Without `flags`, SPEC_ALLOW is set (as runc does).
//!
//! [`rules`] reads the section, [`bpf`] writes the program, [`numbers`] knows the calls.

mod bpf;
mod i386;
mod numbers;
mod rules;
mod x86_64;

use oci_spec::runtime::LinuxSeccomp;
use rustix::io::Errno;

use self::rules::Policy;

/// The kernel's limit (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// What the section asks that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("{option} of linux.seccomp is not supported: {reason}")]
    Unsupported { option: String, reason: &'static str },
    #[error("Action {action} of linux.seccomp does not take an errno")]
    ErrnoNotTaken { action: String },
    #[error("Errno {value} of linux.seccomp is above 4095")]
    ErrnoRange { value: u32 },
    #[error("linux.seccomp names the system call {name:?}, which is unknown")]
    UnknownCall { name: String },
    #[error("A condition of linux.seccomp names argument {index}: there are arguments 0 to 5")]
    ArgumentIndex { index: usize },
    #[error("The filter of linux.seccomp takes {length} instructions, and the kernel takes at most {MAX_INSTRUCTIONS}")]
    TooLong { length: usize },
}

/// A filter, ready to install.
#[derive(Debug)]
pub struct Program {
    filter: Vec<libc::sock_filter>,
    length: u16,
    flags: libc::c_ulong,
}

impl Program {
    /// Compiles the section; `strict`: names that no table knows are an error, as crun has it by an annotation.
    ///
    /// # Errors
    /// Any [`SeccompError`].
    pub fn compile(seccomp: &LinuxSeccomp, strict: bool) -> Result<Self, SeccompError> {
        let policy = Policy::read(seccomp)?;
        let mut names = policy.entries.iter().flat_map(|entry| entry.names);
        if let Some(name) = names.find(|name| strict && !numbers::is_known(name)) {
            return Err(SeccompError::UnknownCall { name: name.clone() });
        }
        let filter = bpf::generate(&policy);
        let length = filter.len();
        let length = u16::try_from(length)
            .ok()
            .filter(|_| length <= MAX_INSTRUCTIONS)
            .ok_or(SeccompError::TooLong { length })?;
        Ok(Self { filter, length, flags: policy.flags })
    }

    /// Puts the filter on the calling thread, and with TSYNC on all. Needs no_new_privs or CAP_SYS_ADMIN. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn install(&self) -> rustix::io::Result<()> {
        let program = libc::sock_fprog { len: self.length, filter: self.filter.as_ptr().cast_mut() };
        let program: *const libc::sock_fprog = &raw const program;
        // SAFETY: the program lives over the call and describes a live array of its length, which the kernel only reads.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, program) };
        match result {
            0 => Ok(()),
            // The id of a thread that could not be synchronized.
            1.. => Err(Errno::BUSY),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
        }
    }
}
