//! What takes names away or moves them.

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::file_system::{Call, FileSystem};

impl FileSystem {
    pub(crate) fn unlink(&self, mut call: Call<'_>, directory: bool) -> Result<(), Errno> {
        let name = call.body.name()?;
        let dir = self.writable_dir(call.header.node)?;
        unlinkat(&dir.file, name, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })
    }

    /// RENAME, and RENAME2 with flags.
    pub(crate) fn rename(&self, mut call: Call<'_>, with_flags: bool) -> Result<(), Errno> {
        let target = call.body.u64()?;
        let mut flags = RenameFlags::empty();
        if with_flags {
            flags = RenameFlags::from_bits_retain(call.body.u32()?);
            call.body.u32()?;
        }
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
        if !known.contains(flags) {
            return Err(Errno::INVAL);
        }
        let (old, new) = (call.body.name()?, call.body.name()?);
        let (from, to) = (self.writable_dir(call.header.node)?, self.writable_dir(target)?);
        if from.entry.id != to.entry.id {
            return Err(Errno::XDEV);
        }
        renameat_with(&from.file, old, &to.file, new, flags)
    }
}
