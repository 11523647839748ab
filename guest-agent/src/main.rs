mod cgroup;
mod procs;
mod seccomp;
mod security;
mod users;

fn main() {}
