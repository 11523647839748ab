//! What users of podman and of docker do alike; each case runs with either.

use super::engine::Engine;
use super::{docker, podman};
use crate::Case;

macro_rules! cases_of_both {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+

        /// Every case, once for each engine.
        pub fn all() -> Vec<Case> {
            vec![$(
                Case { name: concat!("podman_", stringify!($name)), run: |host| podman::with(host, $name::run) },
                Case { name: concat!("docker_", stringify!($name)), run: |host| docker::with(host, $name::run) },
            )+]
        }
    };
}

cases_of_both! {
    attaches_and_detaches,
    builds_images,
    commits_and_diffs,
    copies_both_ways,
    execs,
    follows_logs,
    keeps_volumes,
    kills_with_signals,
    limits_and_updates,
    narrows_rights,
    pauses,
    read_only_with_tmpfs,
    restarts,
    runs_and_tells_exit_codes,
    runs_on_a_terminal,
    stops_and_removes,
    tops_and_stats,
}
