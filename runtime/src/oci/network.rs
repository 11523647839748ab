//! The container's network namespace on the host.

use std::ffi::CStr;

use crate::{Error, ErrorKind};

/// Interfaces that the kernel itself puts into a new namespace, when the modules that they are of are loaded.
const OF_THE_KERNEL: [&str; 10] =
    ["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// Refuses a namespace with interfaces that the guest would have to be joined to.
///
/// # Errors
/// [`ErrorKind::Unsupported`] naming them.
pub(super) fn check_own() -> Result<(), Error> {
    let others: Vec<String> = interfaces().into_iter().filter(|name| !OF_THE_KERNEL.contains(&name.as_str())).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "the container's network namespace has the interface {}: joining it to the machine is not supported yet, use \
             --network none",
            others.join(", ")
        ),
    ))
}

/// Names of the interfaces of this process's namespace.
fn interfaces() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the list ends with an entry without a name and is freed once, after its last use.
    unsafe {
        let list = libc::if_nameindex();
        let mut entry = list;
        while !entry.is_null() && !(*entry).if_name.is_null() {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_listed() {
        assert!(interfaces().iter().any(|name| name == "lo"));
    }
}
