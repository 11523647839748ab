//! Labels of Linux security modules: `process.apparmorProfile` and `process.selinuxLabel`, in force from execve on.
//!
//! The guest's kernel has neither module by default, and policies are the guest's business: a label that cannot be set is
//! an error.

use std::{
    fs::File,
    io::{self, Write},
};

use dewar_protocol::ErrorKind;
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use crate::error::{Doing, Failure, Result};

const SECURITYFS: &str = "/sys/kernel/security";

/// The labels of a process; empty where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    apparmor: String,
    selinux: String,
}

/// Labels on their way: files that take them, opened where procfs can be trusted.
#[derive(Debug, Default)]
pub struct Pending {
    files: Vec<(File, String)>,
}

impl Labels {
    /// Reads the specification and asks the kernel whether it has the modules.
    ///
    /// # Errors
    /// `Unsupported` when it has not.
    pub fn from_spec(apparmor: Option<&String>, selinux: Option<&String>) -> Result<Self> {
        let given = |label: Option<&String>| label.cloned().unwrap_or_default();
        let labels = Self { apparmor: given(apparmor), selinux: given(selinux) };
        if labels == Self::default() {
            return Ok(labels);
        }
        let modules = modules().doing(|| "Asking the kernel for its security modules failed".into())?;
        labels.checked(&modules)
    }

    fn checked(mut self, modules: &str) -> Result<Self> {
        let has = |module: &str| modules.trim().split(',').any(|known| known == module);
        // Without the module every process is unconfined.
        if self.apparmor == "unconfined" && !has("apparmor") {
            self.apparmor.clear();
        }
        for (module, field, label) in
            [("apparmor", "apparmorProfile", &self.apparmor), ("selinux", "selinuxLabel", &self.selinux)]
        {
            if !label.is_empty() && !has(module) {
                return Err(Failure::unsupported(format!(
                    "The process setting {field} ({label:?}) cannot be applied: the guest's kernel has no {module}"
                )));
            }
            if label.contains('\0') {
                return Err(Failure::invalid(format!("The process setting {field} holds a null byte")));
            }
        }
        Ok(self)
    }

    /// Opens what takes the labels of the calling process, in the agent's own procfs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self) -> Result<Pending> {
        let wanted = [
            ("/proc/self/attr/apparmor/exec", &self.apparmor, format!("exec {}", self.apparmor)),
            ("/proc/self/attr/exec", &self.selinux, self.selinux.clone()),
        ];
        let mut files = Vec::new();
        for (path, label, content) in wanted {
            if !label.is_empty() {
                let file = File::options().write(true).open(path).doing(|| format!("Opening {path} failed"))?;
                files.push((file, content));
            }
        }
        Ok(Pending { files })
    }
}

impl Pending {
    /// Sets the labels for the next execve of the process that opened them.
    ///
    /// # Errors
    /// `Invalid` for labels that the policy does not know.
    pub fn apply(&self) -> Result<()> {
        for (file, content) in &self.files {
            let mut file = file;
            file.write_all(content.as_bytes())
                .doing_as(ErrorKind::Invalid, || format!("Setting the security label {content:?} failed"))?;
        }
        Ok(())
    }
}

fn modules() -> io::Result<String> {
    let file = format!("{SECURITYFS}/lsm");
    match std::fs::read_to_string(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("securityfs", SECURITYFS, "securityfs", flags, None::<&std::ffi::CStr>) {
        Ok(()) => std::fs::read_to_string(file),
        // A kernel without it has no modules either.
        Err(Errno::NODEV | Errno::NOENT) => Ok(String::new()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(apparmor: &str, selinux: &str, modules: &str) -> Result<Labels> {
        Labels { apparmor: apparmor.into(), selinux: selinux.into() }.checked(modules)
    }

    #[test]
    fn a_label_needs_its_module() {
        assert!(checked("box", "", "lockdown,landlock,apparmor\n").is_ok());
        assert!(checked("", "system_u:object_r:x:s0", "selinux").is_ok());
        let failure = checked("box", "", "landlock,selinux").expect_err("refused");
        assert_eq!(failure.kind, ErrorKind::Unsupported);
        assert!(failure.sentence().contains("apparmorProfile") && failure.sentence().contains("\"box\""));
        assert!(checked("", "x", "").expect_err("refused").sentence().contains("selinuxLabel"));
        assert!(checked("", "x\0y", "selinux").is_err());
    }

    #[test]
    fn who_wants_to_be_unconfined_is_where_there_is_nothing_else() {
        assert_eq!(checked("unconfined", "", "landlock").expect("valid"), Labels::default());
        assert_eq!(checked("unconfined", "", "apparmor").expect("valid").apparmor, "unconfined");
    }
}
