//! `--security-opt`.

use std::fs;

use super::SpecError;

/// What the `--security-opt` flags amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    pub no_new_privileges: bool,
    pub seccomp: SeccompChoice,
    /// Nothing in /proc and /sys is masked or read-only.
    pub unconfined_paths: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompChoice {
    /// Docker's default behaviour.
    #[default]
    Default,
    Unconfined,
    /// A profile in docker's or the OCI's JSON.
    Profile(String),
}

impl SecurityOptions {
    /// Reads the flags' values, and the profile that one of them may name.
    ///
    /// # Errors
    /// [`SpecError::SecurityOption`], [`SpecError::SecurityModule`] for what the guest cannot do, and
    /// [`SpecError::ProfileFile`].
    pub fn parse(values: &[String]) -> Result<Self, SpecError> {
        let mut options = Self::default();
        for text in values {
            options.add(text)?;
        }
        Ok(options)
    }

    fn add(&mut self, text: &str) -> Result<(), SpecError> {
        let invalid = || SpecError::SecurityOption { text: text.to_owned() };
        if text == "no-new-privileges" {
            self.no_new_privileges = true;
            return Ok(());
        }
        let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
        let module = |module, instead| Err(SpecError::SecurityModule { text: text.to_owned(), module, instead });
        match (name, value) {
            ("no-new-privileges", "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "unconfined") => self.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => self.seccomp = SeccompChoice::Default,
            ("seccomp", path) if !path.is_empty() => {
                let fail = |source| SpecError::ProfileFile { path: path.to_owned(), source };
                self.seccomp = SeccompChoice::Profile(fs::read_to_string(path).map_err(fail)?);
            }
            ("systempaths", "unconfined") => self.unconfined_paths = true,
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor", _) => return module("AppArmor", "apparmor=unconfined"),
            ("label", _) => return module("SELinux", "label=disable"),
            _ => return Err(invalid()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<SecurityOptions, SpecError> {
        SecurityOptions::parse(&values.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_spelling_of_docker_s() {
        assert!(parse(&["no-new-privileges"]).expect("valid").no_new_privileges);
        assert!(parse(&["no-new-privileges:true"]).expect("valid").no_new_privileges);
        assert!(!parse(&["no-new-privileges", "no-new-privileges=false"]).expect("valid").no_new_privileges);
        assert_eq!(parse(&["seccomp:unconfined"]).expect("valid").seccomp, SeccompChoice::Unconfined);
        assert!(parse(&["systempaths=unconfined"]).expect("valid").unconfined_paths);
        assert_eq!(parse(&["apparmor=unconfined", "label:disable"]).expect("valid"), SecurityOptions::default());
    }

    #[test]
    fn what_the_guest_cannot_do_is_refused_and_not_ignored() {
        for text in ["apparmor=docker-default", "label=type:svirt_t", "label=level:s0:c1"] {
            assert!(matches!(parse(&[text]), Err(SpecError::SecurityModule { .. })), "{text}");
        }
        for text in ["bogus", "bogus=1", "seccomp", "seccomp=", "no-new-privileges=maybe", "systempaths=all"] {
            assert!(matches!(parse(&[text]), Err(SpecError::SecurityOption { .. })), "{text}");
        }
        assert!(matches!(parse(&["seccomp=/nowhere/profile.json"]), Err(SpecError::ProfileFile { .. })));
    }
}
