//! PID 1 of the guest: serves the protocol and runs containers.
//!
//! One static binary with one thread. [`boot`] makes the machine usable and connects to the host, [`server`] serves
//! until the host has had enough, [`machine`] ends it. What a container is lies in [`container`]; what its processes
//! do to themselves before they are its own lies in [`child`]. Nothing here trusts what a workload can write to.

mod boot;
mod cgroup;
mod child;
mod container;
mod error;
mod lsm;
mod machine;
mod proc_files;
mod procs;
mod scheduling;
mod seccomp;
mod security;
mod server;
mod sys;
mod users;

use crate::server::{Server, uptime_ns};

fn main() {
    if std::process::id() != 1 {
        eprintln!("dewar-agent is the first process of a guest, and is not run by hand");
        std::process::exit(2);
    }
    let started_ns = uptime_ns();
    machine::set_panic_hook();
    let served = boot::boot(started_ns).and_then(|booted| Server::new(booted.rpc, booted.listener)?.run());
    if let Err(failure) = served {
        machine::say(&failure.sentence());
    }
    machine::power_off()
}
