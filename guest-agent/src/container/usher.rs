//! The way of a container's first process into namespaces of others: a process of its own enters them, makes the first
//! process there, tells the agent which it is, and ends. (The agent could not come back from a user namespace.)

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::Pid,
};

use super::namespaces::Joined;
use crate::{
    child::{
        self,
        report::{self, Message},
    },
    error::{Doing, Failure, Result},
    sys::process::{self, Fork},
};

/// How long entering namespaces may take.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Forks through the namespaces. `born_with`: new ones of the first process (CLONE_NEW*). `fork`: how the usher is made.
/// `Fork::Child` is returned in the first process.
pub fn fork(joined: &[Joined], born_with: u64, fork: impl FnOnce() -> std::io::Result<Fork>) -> Result<Fork> {
    let failed = || "Making the container's process failed".to_owned();
    let (ours, theirs) = report::pair().doing(failed)?;
    match fork().doing(failed)? {
        Fork::Parent { .. } => {
            drop(theirs);
            receive(&ours)
        }
        Fork::Child => {
            child::mark();
            match usher(joined, born_with, &theirs) {
                Ok(child @ Fork::Child) => Ok(child),
                Ok(Fork::Parent { .. }) => process::exit_now(0),
                Err(failure) => {
                    report::failure_to(&theirs, &failure);
                    process::exit_now(125)
                }
            }
        }
    }
}

fn usher(joined: &[Joined], born_with: u64, agent: &OwnedFd) -> Result<Fork> {
    // In the user namespace there would be no right to enter what does not belong to it.
    let last = |joined: &&Joined| joined.flag == libc::CLONE_NEWUSER;
    let order = joined.iter().filter(|joined| !last(joined)).chain(joined.iter().filter(last));
    for Joined { flag, fd } in order {
        process::set_namespaces(fd, *flag).doing(|| "Entering another container's namespaces failed".into())?;
    }
    let fork = process::fork_into(born_with, None).doing(|| "Making the container's process failed".into())?;
    if let Fork::Parent { pidfd, .. } = &fork {
        report::process_to(agent, pidfd.as_fd())?;
    }
    Ok(fork)
}

fn receive(usher: &OwnedFd) -> Result<Fork> {
    let failed = || "Learning of the container's process failed".to_owned();
    loop {
        let ready = poll(&mut [PollFd::new(usher, PollFlags::IN)], Some(&PATIENCE));
        match ready {
            Err(Errno::INTR) => continue,
            Ok(0) => return Err(Failure::state("Entering another container's namespaces took too long")),
            other => drop(other.doing(failed)?),
        }
        return match report::next(usher).doing(failed)? {
            Some(Message::Process(pidfd)) => Ok(Fork::Parent { pid: number_of(&pidfd)?, pidfd }),
            Some(Message::Failed(failure)) => Err(failure),
            _ => Err(Failure::state(failed())),
        };
    }
}

/// The number of a process in the agent's own PID namespace.
fn number_of(pidfd: &OwnedFd) -> Result<Pid> {
    let failed = || "Reading the number of the container's process failed".to_owned();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).doing(failed)?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let number = line.and_then(|line| line.trim().parse().ok()).filter(|number| *number > 0);
    number.and_then(Pid::from_raw).ok_or_else(|| Failure::state(failed()))
}
