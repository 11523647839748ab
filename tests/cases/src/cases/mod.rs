//! The cases, by file name.

use crate::Case;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+

        /// Every case.
        pub fn all() -> Vec<Case> {
            vec![$(Case { name: stringify!($name), run: $name::run }),+]
        }
    };
}

cases! {
    archive_digests_are_checked,
    archive_from_anywhere,
    archive_is_truncated,
    archive_names_lead_out,
    attach_and_detach_keys,
    capabilities_are_docker_s,
    detached_life_cycle,
    environment_and_directory,
    exec_runs_in_the_container,
    exit_codes,
    gigabyte_through_a_pipe,
    guest_panics,
    head_ends_the_run,
    inspect_tells_what_was_asked,
    kernel_file_is_bad,
    layer_entries_of_every_kind,
    layers_hide_what_is_below,
    layers_may_be_many,
    limits_are_seen_and_hold,
    logs_are_kept,
    memory_too_small,
    names_are_unique,
    namespaces_are_its_own,
    oom_kill_is_reported,
    own_init_reaps,
    pause_freezes,
    read_only_and_tmpfs,
    restart_keeps_the_disk,
    seccomp_is_docker_s,
    stdin_half_close,
    stop_is_gentle_then_firm,
    supervisor_killed,
    terminal_is_real,
    twenty_at_once,
    users_by_name,
    vmm_killed,
    walls_are_two,
    writable_layer_is_private,
}
