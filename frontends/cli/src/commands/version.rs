//! `dewar version`.

use clap::Args;
use serde_json::json;

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::template::Template;

#[derive(Debug, Args)]
pub struct Version {
    /// json, or a template such as {{.Client.Version}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Verb for Version {
    const NAME: &'static str = "version";
    const ABOUT: &'static str = "Print versions";
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, _globals: &Globals) -> anyhow::Result<u8> {
        let version = env!("CARGO_PKG_VERSION");
        let protocol = dewar_protocol::VERSION;
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let (os, arch) = (std::env::consts::OS, go_arch());
        let all = json!({"Client": {
            "Version": version, "ProtocolVersion": protocol, "Os": os, "Arch": arch, "KernelVersion": kernel,
        }});
        match self.format.as_deref() {
            Some("json") => output::line(&all.to_string())?,
            Some(template) => output::line(&Template::parse(template)?.render(&all)?)?,
            None => output::line(&format!(
                "Client: Dewar\n Version:           {version}\n Protocol version:  {protocol}\n OS/Arch:           {os}/{arch}\n \
                 Host kernel:       {kernel}"
            ))?,
        }
        Ok(0)
    }
}

/// The name of this architecture that docker shows.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}
