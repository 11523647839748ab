//! Loads a guest kernel: finds out what the file is and puts it into guest memory.
//!
//! The kernel file comes from the host's user and is checked as any input: every offset and size in it is an allegation
//! until it is seen to lie within the file and within low RAM.

mod bzimage;
mod elf;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dewar_virtio::GuestMemory;
use linux_loader::loader::bootparam::setup_header;
use thiserror::Error;

use crate::layout::RamRange;

#[derive(Debug, Error)]
pub enum KernelError {
    #[error("Could not open the guest kernel {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Could not read the guest kernel {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a kernel: give an x86-64 Linux kernel as ELF (vmlinux) or bzImage", path.display())]
    NotAKernel { path: PathBuf },
    #[error("{} is not a kernel that can be booted: {what}", path.display())]
    Unbootable { path: PathBuf, what: &'static str },
    #[error("The guest kernel {} is truncated: it should have {expected} bytes and has {actual}", path.display())]
    Truncated { path: PathBuf, expected: u64, actual: u64 },
    #[error("The guest kernel {} needs {needed_mib} MiB of memory and the machine has {available_mib} MiB: \
             give it more memory", path.display())]
    DoesNotFit { path: PathBuf, needed_mib: u64, available_mib: u64 },
}

/// How the first instruction of a kernel is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Xen's PVH protocol: 32-bit protected mode without paging, `ebx` points to the start info.
    Pvh { address: u32 },
    /// Linux's 64-bit boot protocol: long mode with an identity map, `rsi` points to the boot parameters.
    Long { address: u64 },
}

/// A kernel that lies in guest memory.
#[derive(Debug, Clone)]
pub struct LoadedKernel {
    pub entry: Entry,
    /// First byte that the kernel does not need for starting.
    pub end: u64,
    /// Of a bzImage: to be handed back in the boot parameters.
    pub setup_header: Option<setup_header>,
}

/// A kernel file while it is being loaded.
struct Image<'a> {
    path: &'a Path,
    file: &'a File,
    len: u64,
    ram: RamRange,
}

impl Image<'_> {
    fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    fn unbootable(&self, what: &'static str) -> KernelError {
        KernelError::Unbootable { path: self.path(), what }
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), KernelError> {
        let end = offset.saturating_add(into.len() as u64);
        self.check_has(end)?;
        self.file.read_exact_at(into, offset).map_err(|source| KernelError::Read { path: self.path(), source })
    }

    fn check_has(&self, end: u64) -> Result<(), KernelError> {
        if end > self.len {
            return Err(KernelError::Truncated { path: self.path(), expected: end, actual: self.len });
        }
        Ok(())
    }

    fn check_fits(&self, end: u64) -> Result<(), KernelError> {
        if end > self.ram.end() {
            let needed_mib = end.div_ceil(1 << 20);
            return Err(KernelError::DoesNotFit { path: self.path(), needed_mib, available_mib: self.ram.end() >> 20 });
        }
        Ok(())
    }
}

/// Loads the kernel at `path` into the low RAM `ram` of `memory`.
///
/// # Errors
/// When the file cannot be read, is no kernel, is incomplete, or does not fit.
pub fn load(path: &Path, memory: &GuestMemory, ram: RamRange) -> Result<LoadedKernel, KernelError> {
    let file = File::open(path).map_err(|source| KernelError::Open { path: path.to_owned(), source })?;
    let metadata = file.metadata().map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(KernelError::NotAKernel { path: path.to_owned() });
    }
    let image = Image { path, file: &file, len: metadata.len(), ram };
    let mut head = [0; bzimage::HEADER_END];
    let have = usize::try_from(image.len).unwrap_or(usize::MAX).min(head.len());
    image.read(0, &mut head[..have])?;
    if elf::is_elf(&head) {
        elf::load(&image, memory)
    } else if bzimage::is_bzimage(&head) {
        bzimage::load(&image, &head, memory)
    } else {
        Err(KernelError::NotAKernel { path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RamLayout;
    use crate::memory;
    use std::io::Write;

    /// Writes `bytes` to a file and tries to load it into 16 MiB.
    pub(super) fn load_bytes(bytes: &[u8]) -> (Result<LoadedKernel, KernelError>, GuestMemory) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let layout = RamLayout::new(16).unwrap();
        let memory = memory::map(&layout, false).unwrap();
        (load(file.path(), &memory, layout.low()), memory)
    }

    #[test]
    fn other_files_are_not_kernels() {
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 4096], b"\x7fEL"] {
            let error = load_bytes(bytes).0.unwrap_err();
            assert!(error.to_string().contains("is not a kernel"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let layout = RamLayout::new(16).unwrap();
        let memory = memory::map(&layout, false).unwrap();
        let error = load(Path::new("/nonexistent/vmlinux"), &memory, layout.low()).unwrap_err();
        assert_eq!(error.to_string(), "Could not open the guest kernel /nonexistent/vmlinux");
        let error = load(&std::env::temp_dir(), &memory, layout.low()).unwrap_err();
        assert!(error.to_string().contains("is not a kernel"), "{error}");
    }
}
