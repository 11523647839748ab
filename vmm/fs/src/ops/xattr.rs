//! Extended attributes. Passed on are those that are the file's own: `user.*`, access control lists, file capabilities.
//! Others mean something to the host's kernel (labels of its security modules, `trusted.*`) and do not exist here.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use rustix::fs::{XattrFlags, getxattr, getxattr_query, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::abi;
use crate::file_system::{Call, FileSystem};
use crate::host;
use crate::nodes::{Node, ROOT};
use crate::wire::Reply;

/// Bytes of a value, and of a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_SIZE: usize = 64 << 10;

fn is_passed_on(name: &[u8]) -> bool {
    let whole: [&[u8]; 3] = [b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability"];
    whole.contains(&name) || name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty())
}

fn allowed(name: &CStr) -> Result<&CStr, Errno> {
    if is_passed_on(name.to_bytes()) { Ok(name) } else { Err(Errno::OPNOTSUPP) }
}

impl FileSystem {
    pub(crate) fn getxattr(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let size = usize::try_from(call.body.u32()?).map_err(|_| Errno::INVAL)?;
        call.body.u32()?;
        let name = allowed(call.body.text()?)?;
        if call.header.node == ROOT {
            return Err(Errno::NODATA);
        }
        let node = self.nodes.get(call.header.node)?;
        let path = host::link_name(&node.file);
        if size == 0 {
            return put_size(getxattr_query(path.as_c_str(), name)?, reply);
        }
        if reply.room() < size.min(MAX_SIZE) {
            return Err(Errno::IO);
        }
        reply.fill(size.min(MAX_SIZE), |space| getxattr(path.as_c_str(), name, space))
    }

    pub(crate) fn listxattr(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let size = usize::try_from(call.body.u32()?).map_err(|_| Errno::INVAL)?;
        let names = if call.header.node == ROOT { Vec::new() } else { names(&*self.nodes.get(call.header.node)?)? };
        if size == 0 {
            return put_size(names.len(), reply);
        }
        if names.len() > size {
            return Err(Errno::RANGE);
        }
        reply.bytes(&names)
    }

    pub(crate) fn setxattr(&self, mut call: Call<'_>) -> Result<(), Errno> {
        let size = usize::try_from(call.body.u32()?).map_err(|_| Errno::INVAL)?;
        let flags = XattrFlags::from_bits_retain(call.body.u32()?);
        let mut kill = false;
        if self.long_setxattr.load(Ordering::SeqCst) {
            kill = call.body.u32()? & abi::SETXATTR_ACL_KILL_SGID != 0;
            call.body.u32()?;
        }
        let name = allowed(call.body.text()?)?;
        if size > MAX_SIZE {
            return Err(Errno::TOOBIG);
        }
        let value = call.body.bytes(size)?;
        let node = self.attributed(call.header.node)?;
        let set = || setxattr(host::link_name(&node.file), name, value, flags);
        if kill { call.thread.without_set_id(set) } else { set() }
    }

    pub(crate) fn removexattr(&self, mut call: Call<'_>) -> Result<(), Errno> {
        let name = allowed(call.body.text()?)?;
        let node = self.attributed(call.header.node)?;
        removexattr(host::link_name(&node.file), name)
    }

    fn attributed(&self, id: u64) -> Result<std::sync::Arc<Node>, Errno> {
        if id == ROOT {
            return Err(Errno::ROFS);
        }
        let node = self.nodes.get(id)?;
        node.writable()?;
        Ok(node)
    }
}

fn put_size(size: usize, reply: &mut Reply) -> Result<(), Errno> {
    reply.u32(u32::try_from(size).map_err(|_| Errno::TOOBIG)?)?;
    reply.u32(0)
}

/// The names that are passed on, each with its NUL.
fn names(node: &Node) -> Result<Vec<u8>, Errno> {
    let mut all = vec![0; MAX_SIZE];
    let len = listxattr(host::link_name(&node.file), all.as_mut_slice())?;
    let all = all.get(..len).unwrap_or_default();
    let passed =
        all.split_inclusive(|byte| *byte == 0).filter(|name| is_passed_on(name.strip_suffix(&[0]).unwrap_or(name)));
    Ok(passed.flatten().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_attributes_are_not_passed_on() {
        for name in ["user.a", "system.posix_acl_access", "security.capability"] {
            assert!(is_passed_on(name.as_bytes()), "{name}");
        }
        for name in ["", "user.", "user", "trusted.overlay.opaque", "security.selinux", "system.nfs4_acl"] {
            assert!(!is_passed_on(name.as_bytes()), "{name}");
        }
    }
}
