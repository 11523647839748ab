//! `dewar inspect`: containers and images as JSON with docker's names.

use anyhow::Context;
use clap::{Args, ValueEnum};
use dewar_protocol::UserSpec;
use dewar_runtime::container::{Container, Status, Writable};
use dewar_runtime::images::Image;
use dewar_runtime::spec::parse;
use dewar_runtime::{Error, Runtime};
use oci_spec::runtime::{Linux, LinuxIdMapping, Spec};
use serde_json::{Value, json};

use crate::cli::{Globals, Verb};
use crate::failure::{is_not_found, print};
use crate::output;
use crate::output::template::Template;
use crate::output::units::rfc3339;

/// Docker's way of saying never.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Container,
    Image,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// json, or a template such as {{.State.Status}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only look among containers, or among images
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    /// Containers or images, by name or id
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

impl Verb for Inspect {
    const NAME: &'static str = "inspect";
    const ABOUT: &'static str = "Print all that is known about containers and images";
    const USAGE: &'static str = "[OPTIONS] NAME|ID [NAME|ID...]";
    const EXAMPLES: &'static str = "  dewar inspect web\n  dewar inspect -f '{{.State.ExitCode}}' web";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        let template = match self.format.as_deref() {
            None | Some("json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let mut found = Vec::new();
        let mut code = 0;
        for name in &self.names {
            match self.find(&runtime, name) {
                Ok(value) => found.push(value),
                Err(error) => {
                    print(&error);
                    code = 1;
                }
            }
        }
        match template {
            Some(template) => {
                for value in &found {
                    output::line(&template.render(value)?)?;
                }
            }
            None if self.format.is_some() => output::line(&Value::Array(found).to_string())?,
            None => output::line(&serde_json::to_string_pretty(&found)?)?,
        }
        Ok(code)
    }
}

impl Inspect {
    fn find(&self, runtime: &Runtime, name: &str) -> anyhow::Result<Value> {
        if self.kind != Some(Kind::Image) {
            match runtime.containers().find(name).map_err(anyhow::Error::from) {
                Ok(container) => return describe_container(&container),
                Err(error) if self.kind.is_some() || !is_not_found(&error) => return Err(error),
                Err(_) => {}
            }
        }
        match runtime.images()?.resolve(name).map_err(|e| anyhow::Error::from(Error::from(e))) {
            Ok(image) => describe_image(&image),
            Err(error) if self.kind.is_none() && is_not_found(&error) => anyhow::bail!("No such object: {name}"),
            Err(error) => Err(error),
        }
    }
}

fn describe_container(container: &Container) -> anyhow::Result<Value> {
    let spec = container.spec()?;
    let state = container.state()?;
    let config = &container.config;
    let (program, args) = config.command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let time = |point: Option<u64>| point.map_or_else(|| NEVER.to_owned(), rfc3339);
    Ok(json!({
        "Id": config.id,
        "Created": rfc3339(config.created_ns),
        "Path": program,
        "Args": args,
        "State": {
            "Status": state.status.as_str(),
            "Running": state.status.is_live(),
            "Paused": state.status == Status::Paused,
            "OOMKilled": state.oom_killed,
            "Pid": state.pid.unwrap_or(0),
            "ExitCode": state.exit_code,
            "Error": state.error.as_deref().unwrap_or_default(),
            "StartedAt": time(state.started_ns),
            "FinishedAt": time(state.finished_ns),
        },
        "Image": config.image.id,
        "Name": format!("/{}", config.name),
        "Platform": "linux",
        "LogPath": container.log_path(),
        "Config": container_config(container, &spec),
        "HostConfig": host_config(container, &spec),
        "Dewar": {
            "Engine": state.engine.unwrap_or(config.engine).as_str(),
            "Kernel": config.kernel,
            "Cpus": config.vcpus,
            "MemoryMiB": config.memory_mib,
            "Writable": config.writable,
            "Layers": config.layers.len(),
        },
    }))
}

fn container_config(container: &Container, spec: &Spec) -> Value {
    let config = &container.config;
    let process = spec.process().as_ref();
    let user = match &config.user {
        UserSpec::Lookup(user) => user.clone(),
        UserSpec::Spec => process.map(|p| format!("{}:{}", p.user().uid(), p.user().gid())).unwrap_or_default(),
    };
    json!({
        "Hostname": spec.hostname(),
        "User": user,
        "Tty": config.terminal,
        "OpenStdin": config.open_stdin,
        "Env": process.and_then(|p| p.env().clone()).unwrap_or_default(),
        "Cmd": config.command,
        "Image": config.image.name,
        "WorkingDir": process.map(|p| p.cwd().clone()),
        "Labels": config.labels,
        "StopSignal": parse::signal_name(config.stop_signal),
        "StopTimeout": config.stop_timeout,
    })
}

fn host_config(container: &Container, spec: &Spec) -> Value {
    let config = &container.config;
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|l| l.resources().as_ref());
    let memory = resources.and_then(|r| r.memory().as_ref());
    let cpu = resources.and_then(|r| r.cpu().as_ref());
    let process = spec.process().as_ref();
    let capabilities = process.and_then(|p| p.capabilities().as_ref()).and_then(|c| c.bounding().as_ref());
    let mut capabilities: Vec<String> = capabilities.into_iter().flatten().map(|c| format!("CAP_{c}")).collect();
    capabilities.sort_unstable();
    let scratch = match config.writable {
        Writable::Disk { size } | Writable::Tmpfs { size } => size,
    };
    json!({
        "AutoRemove": config.auto_remove,
        "NetworkMode": "none",
        "Init": config.init,
        "IDMappings": id_mappings(linux),
        "Memory": memory.and_then(|m| m.limit()).unwrap_or(0),
        "MemorySwap": memory.and_then(|m| m.swap()).unwrap_or(0),
        "MemoryReservation": memory.and_then(|m| m.reservation()).unwrap_or(0),
        "CpuQuota": cpu.and_then(|c| c.quota()).unwrap_or(0),
        "CpuPeriod": cpu.and_then(|c| c.period()).unwrap_or(0),
        "CpuShares": cpu.and_then(|c| c.shares()).unwrap_or(0),
        "CpusetCpus": cpu.and_then(|c| c.cpus().clone()).unwrap_or_default(),
        "CpusetMems": cpu.and_then(|c| c.mems().clone()).unwrap_or_default(),
        "BlkioWeight": resources.and_then(|r| r.block_io().as_ref()).and_then(|b| b.weight()).unwrap_or(0),
        "PidsLimit": resources.and_then(|r| r.pids().as_ref()).map(|p| p.limit()),
        "ReadonlyRootfs": spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false),
        "Capabilities": capabilities,
        "NoNewPrivileges": process.and_then(|p| p.no_new_privileges()).unwrap_or(false),
        "Seccomp": linux.is_some_and(|l| l.seccomp().is_some()),
        "MaskedPaths": linux.and_then(|l| l.masked_paths().clone()).unwrap_or_default(),
        "ReadonlyPaths": linux.and_then(|l| l.readonly_paths().clone()).unwrap_or_default(),
        "Sysctls": linux.and_then(|l| l.sysctl().clone()).unwrap_or_default(),
        "StorageOpt": {"size": scratch.to_string()},
    })
}

/// As podman shows them; null without a user namespace.
fn id_mappings(linux: Option<&Linux>) -> Value {
    let lines = |mappings: &Option<Vec<LinuxIdMapping>>| -> Option<Vec<String>> {
        let line = |m: &LinuxIdMapping| format!("{}:{}:{}", m.container_id(), m.host_id(), m.size());
        mappings.as_ref().map(|mappings| mappings.iter().map(line).collect())
    };
    match linux.and_then(|l| lines(l.uid_mappings()).zip(lines(l.gid_mappings()))) {
        Some((users, groups)) => json!({"UidMap": users, "GidMap": groups}),
        None => Value::Null,
    }
}

fn describe_image(image: &Image) -> anyhow::Result<Value> {
    let whole = serde_json::to_value(&image.config).context("cannot show the image's configuration")?;
    let part = |name: &str| whole.get(name).cloned().unwrap_or(Value::Null);
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": image.references.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Created": image.created,
        "Architecture": part("architecture"),
        "Os": part("os"),
        "Author": part("author"),
        "Size": image.size,
        "Config": part("config"),
        "RootFS": {"Type": "layers", "Layers": image.layers.iter().map(|l| l.diff_id.to_string()).collect::<Vec<_>>()},
    }))
}
