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
    attach_without_terminal,
    capabilities_are_docker_s,
    cli_killed,
    create_then_start,
    decompression_bomb,
    detached_life_cycle,
    environment_and_directory,
    exec_runs_in_the_container,
    exit_codes,
    figures_of_what_runs,
    files_given_to_run,
    gigabyte_through_a_pipe,
    guest_panics,
    head_ends_the_run,
    image_is_unknown,
    inspect_tells_of_images,
    inspect_tells_what_was_asked,
    installation_is_damaged,
    kernel_file_is_bad,
    kernel_may_be_a_bzimage,
    kvm_engine_is_refused,
    layer_entries_of_every_kind,
    layers_hide_what_is_below,
    layers_may_be_many,
    limits_are_seen_and_hold,
    limits_can_change,
    log_flood_is_bounded,
    logs_are_kept,
    memory_too_small,
    names_are_unique,
    namespaces_are_its_own,
    namespaces_on_request,
    oom_kill_is_reported,
    own_init_reaps,
    pause_freezes,
    pull_from_a_registry,
    read_only_and_tmpfs,
    restart_keeps_the_disk,
    scratch_disk_is_full,
    seccomp_from_a_file,
    seccomp_is_docker_s,
    stdin_half_close,
    stop_is_gentle_then_firm,
    store_disk_is_full,
    supervisor_killed,
    tags_and_removal,
    terminal_is_real,
    tool_tells_of_itself,
    twenty_at_once,
    ulimits_sysctls_and_shm,
    users_by_name,
    vmm_killed,
    walls_are_two,
    writable_layer_is_private,
}
