//! nginx as the container's process: files to many at once, a new configuration while it serves, an end by its own signal.

use std::fs;

use anyhow::{Result, ensure};

use super::Engine;

const CONFIGURATION: &str = r"
daemon off;
worker_processes 2;
error_log /dev/stderr notice;
events {}
http {
    access_log off;
    sendfile on;
    server { listen 127.0.0.1:80; root /site; location = /which { return 200 'first'; } }
}
";

/// Sixteen at once, each of which has to be the file.
const ASK: &str = r"
set -e
until curl -sf http://127.0.0.1/which >/dev/null; do :; done
curl -sS --fail -Z --parallel-max 16 'http://127.0.0.1/large?[1-16]' -o '/tmp/#1'
for i in $(seq 16); do cmp /site/large /tmp/$i; done
curl -sS http://127.0.0.1/which
curl -sS -r 1000000-1999999 http://127.0.0.1/large | cmp - /site/part
curl -s -o /dev/null -w ' %{http_code}' http://127.0.0.1/none
";

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let large: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).take(4 << 20).collect();
    fs::write(dir.path().join("part"), &large[1_000_000..2_000_000])?;
    fs::write(dir.path().join("large"), large)?;
    let configuration = dir.path().join("nginx.conf");
    fs::write(&configuration, CONFIGURATION)?;
    let name = podman.host.name();
    let volume = format!("{}:/site:ro", dir.path().display());
    let flags = ["-d", "--name", &name, "--stop-signal", "QUIT", "-v", &volume];
    podman.run(&flags, &["nginx", "-c", "/site/nginx.conf"])?.success()?;
    let told = podman.ok(&["exec", &name, "sh", "-c", ASK])?;
    ensure!(told == "first 404", "{told}");

    fs::write(&configuration, CONFIGURATION.replace("first", "second"))?;
    podman.ok(&["kill", "-s", "HUP", &name])?;
    let second = "until test \"$(curl -s http://127.0.0.1/which)\" = second; do :; done";
    podman.ok(&["exec", &name, "sh", "-c", second])?;
    podman.ok(&["stop", &name])?;
    let code = podman.ok(&["inspect", "-f", "{{.State.ExitCode}}", &name])?;
    ensure!(code == "0", "exit code {code}");
    podman.ok(&["rm", &name])?;
    Ok(())
}
