//! The command line, as runc's.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dewar_runtime::oci::update::UpdateFlags;

/// An OCI runtime that runs each container in a microVM of its own.
#[derive(Debug, Parser)]
#[command(name = "dewar-oci", disable_version_flag = true)]
pub struct Cli {
    /// Folder for the state of containers (should be on a tmpfs)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File for messages, beside the standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Shape of the messages
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Also log what is of interest to developers
    #[arg(long)]
    pub debug: bool,
    /// Have systemd make the container's cgroup; cgroupsPath is slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// The same in crun's words; with disabled there is no cgroup on the host
    #[arg(long, value_enum, value_name = "MANAGER")]
    pub cgroup_manager: Option<CgroupManager>,
    /// Whether to ignore that cgroups cannot be written; needs nothing here, where it is found out
    #[arg(long, value_name = "true|false|auto", value_parser = ["true", "false", "auto"])]
    pub rootless: Option<String>,
    /// Print the versions
    #[arg(short, long)]
    pub version: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct Make {
    /// Name of the container, unique on this host
    pub id: String,
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Another name of the configuration than config.json, in the bundle
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// File for the process id of the container's process on the host
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Needs nothing here: the root is pivoted to in the guest
    #[arg(long)]
    pub no_pivot: bool,
    /// Needs nothing here: a guest has its own keyrings
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Not supported: descriptors of the host cannot be passed into a machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container whose process waits for start
    Create(Make),
    /// Run the command of a created container
    Start { id: String },
    /// Create and start a container
    Run {
        #[command(flatten)]
        make: Make,
        /// Return when the container runs
        #[arg(short, long)]
        detach: bool,
        /// Do not delete the container after it has ended
        #[arg(long)]
        keep: bool,
    },
    /// Print the state of a container
    State { id: String },
    /// Send a signal to a container's init
    Kill {
        /// To all processes of the container
        #[arg(short, long)]
        all: bool,
        id: String,
        #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
        signal: String,
    },
    /// Remove a stopped container
    Delete {
        /// Kill it first when it still runs
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Run another process in a container
    Exec(Box<Exec>),
    /// List the processes of a container
    Ps {
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
        id: String,
        /// Options of ps(1); the guest's processes are shown in one way
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Freeze all processes of a container
    Pause { id: String },
    /// Let a paused container go on
    Resume { id: String },
    /// Change the limits of a container
    Update {
        id: String,
        #[command(flatten)]
        flags: Box<UpdateFlags>,
    },
    /// Print the counters of a container
    Events {
        /// Seconds between two prints
        #[arg(long, default_value = "5s")]
        interval: String,
        /// Print once
        #[arg(long)]
        stats: bool,
        id: String,
    },
    /// List containers
    List {
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Write a config.json to start from
    Spec {
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
        /// For a user without privileges
        #[arg(long)]
        rootless: bool,
    },
    /// Print what this runtime supports
    Features {
        /// The table of all fields of config.json, as documentation
        #[arg(long)]
        markdown: bool,
    },
    /// Not supported yet
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Not supported yet
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Exec {
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Current working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Environment variable NAME=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User id, and group id behind a colon
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with an OCI process
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    #[arg(short, long)]
    pub detach: bool,
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    #[arg(long)]
    pub no_new_privs: bool,
    /// Capability to add
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Not supported: descriptors of the host cannot be passed into a machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// In a paused container wait until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Run it in an existing cgroup below the container's, in the guest
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
