//! Becoming the user of the process, with no more rights than it was given.

use std::{
    collections::HashSet,
    ffi::CString,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use dewar_protocol::{ErrorKind, UserSpec};
use rustix::{
    fs::{FileType, Gid, Mode, Uid, fchown, fstat},
    process::{chdir, getcwd, umask},
    stdio::{stderr, stdin, stdout},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::{
    container::process::ProcessPlan,
    error::{Doing, Failure, Result},
    seccomp::Program,
    security,
    sys::scheduling,
    users,
};

/// Who the process will be.
pub struct Who {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: Option<String>,
}

/// Looks the user up, in the container's own files where the specification does not say it in numbers.
pub fn look_up(root: BorrowedFd<'_>, plan: &ProcessPlan) -> Result<Who> {
    match &plan.user {
        UserSpec::Spec => {
            let home = if plan.has_home() { None } else { users::home_of(root, plan.uid).ok() };
            Ok(Who { uid: plan.uid, gid: plan.gid, groups: plan.groups.clone(), home })
        }
        UserSpec::Lookup(user) => {
            let found = users::lookup(root, user)
                .doing_as(ErrorKind::Invalid, || format!("Looking up the user {user:?} failed"))?;
            let mut groups = found.groups;
            groups.extend_from_slice(&plan.groups);
            Ok(Who { uid: found.uid, gid: found.gid, groups, home: Some(found.home) })
        }
    }
}

impl Who {
    /// The environment of the process: the plan's, with HOME where it has none. Of two variables of one name the later
    /// counts.
    pub fn environment(&self, plan: &ProcessPlan) -> Vec<CString> {
        let name = |variable: &CString| variable.to_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
        let mut seen = HashSet::new();
        let later = plan.environment.iter().rev().filter(|variable| seen.insert(name(variable)));
        let mut environment: Vec<CString> = later.cloned().collect();
        environment.reverse();
        let home = self.home.as_ref().filter(|_| !plan.has_home());
        if home.is_some() {
            environment.retain(|variable| variable.to_bytes() != b"HOME=");
        }
        environment.extend(home.and_then(|home| CString::new(format!("HOME={home}")).ok()));
        environment
    }

    /// Gives the standard streams to the user, so that `/dev/stdout` can be opened by name.
    pub fn own_streams(&self) -> Result<()> {
        if self.uid == 0 {
            return Ok(());
        }
        for stream in [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()] {
            let failed = || "Giving the standard streams to the user failed".to_owned();
            let kind = FileType::from_raw_mode(fstat(stream).doing(failed)?.st_mode);
            let null = kind == FileType::CharacterDevice && !rustix::termios::isatty(stream);
            if !null {
                fchown(stream, Some(Uid::from_raw(self.uid)), None).doing(failed)?;
            }
        }
        Ok(())
    }

    /// Gives up every right the process is not to have. Afterwards this process is the user.
    pub fn become_user(&self, plan: &ProcessPlan, seccomp: Option<&Program>) -> Result<()> {
        let rights = || "Setting capabilities failed".to_owned();
        plan.scheduling.apply()?;
        plan.rlimits.apply().doing(|| "Setting resource limits failed".into())?;
        plan.capabilities.drop_bounding().doing(rights)?;
        // Loading a filter without no_new_privs needs a capability that is about to go.
        if let Some(program) = seccomp.filter(|_| !plan.no_new_privileges) {
            program.install().doing(|| "Loading the seccomp filter failed".into())?;
        }
        // As root, for directories that only root may enter; and once more below, for those that only the user may.
        let early = chdir(plan.cwd.as_path());
        security::set_keep_caps(true).doing(rights)?;
        let identity = || format!("Becoming user {} and group {} failed", self.uid, self.gid);
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups).doing(identity)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_res_gid(gid, gid, gid).doing(identity)?;
        set_thread_res_uid(uid, uid, uid).doing(identity)?;
        plan.capabilities.apply().doing(rights)?;
        if early.is_err() {
            enter(&plan.cwd)?;
        }
        check_inside()?;
        umask(Mode::from_raw_mode(plan.umask));
        if plan.no_new_privileges {
            security::set_no_new_privs().doing(|| "Setting no_new_privs failed".into())?;
        }
        Ok(())
    }
}

fn enter(cwd: &Path) -> Result<()> {
    chdir(cwd).doing(|| format!("Entering the working directory {} failed", cwd.display()))
}

/// A working directory that has no path from the root is one that was reached through a leaked descriptor.
fn check_inside() -> Result<()> {
    let failed = || "The working directory is not inside the container's root".to_owned();
    let cwd = getcwd(Vec::new()).doing_as(ErrorKind::Invalid, failed)?;
    if cwd.to_bytes().starts_with(b"/") { Ok(()) } else { Err(Failure::invalid(failed())) }
}

/// Sets the personality of the calling process, and of what it runs.
pub fn set_personality(personality: Option<u32>) -> Result<()> {
    let set = personality.map_or(Ok(()), scheduling::set_personality);
    set.doing(|| "Setting the personality failed".into())
}

/// Takes the root user of a user namespace that has just been given its mappings.
pub fn become_root() -> Result<()> {
    let failed = || "Becoming root in the user namespace failed".to_owned();
    set_thread_groups(&[]).doing(failed)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(failed)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(failed)
}

/// The last step before execve: from here on the filter applies.
pub fn filter(plan: &ProcessPlan, seccomp: Option<&Program>) -> Result<()> {
    match seccomp.filter(|_| plan.no_new_privileges) {
        Some(program) => program.install().doing(|| "Loading the seccomp filter failed".into()),
        None => Ok(()),
    }
}
