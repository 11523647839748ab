//! A container that says on its notify socket that it is ready has its runtime tell the service manager (sd_notify(3)).

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Host, skip};

/// No tool of busybox sends to a datagram socket of any name.
const SENDER: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(int argc, char **argv) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    strncpy(to.sun_path, getenv("NOTIFY_SOCKET"), sizeof to.sun_path - 1);
    int socket_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    return sendto(socket_fd, argv[1], strlen(argv[1]), 0, (void *)&to, sizeof to) < 0;
}
"#;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let (source, sender) = (host.folder().join("sender.c"), bundle.rootfs("bin/sender"));
    fs::write(&source, SENDER)?;
    match Command::new("gcc").args(["-static", "-o"]).arg(&sender).arg(&source).status() {
        Ok(status) => ensure!(status.success(), "gcc: {status}"),
        Err(error) => return skip(format!("a program for the container cannot be made: gcc: {error}")),
    }
    let path = host.folder().join("manager");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(60)))?;
    bundle.script("sender STATUS=up && sender READY=1 && sleep 1000").write()?;
    let id = host.id();
    // The manager has to read while `run` waits for it.
    let told = std::thread::spawn(move || read(&manager));
    let run = host.command(&["run", "--detach", "--bundle"]).arg(&bundle.path).arg(&id).env("NOTIFY_SOCKET", &path);
    let ran = run.finish().and_then(|finished| finished.success());
    let told = told.join().ok().context("the reader panicked")?;
    host.runtime(&["delete", "--force", &id])?.success()?;
    ran?;
    told
}

/// Whatever else the manager is told: that it is ready.
fn read(manager: &UnixDatagram) -> Result<()> {
    let mut message = [0; 4096];
    loop {
        let length = manager.recv(&mut message).context("nothing more is told")?;
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        ensure!(!text.contains("STATUS"), "the workload's own words are told: {text:?}");
        if text.lines().any(|line| line == "READY=1") {
            return Ok(());
        }
    }
}
