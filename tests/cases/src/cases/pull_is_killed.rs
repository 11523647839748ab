//! A pull or load that ends in the middle of a layer leaves nothing: at once when it is asked to end, and where it was killed
//! outright, as soon as any command looks at the images.

use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Result, ensure};
use dewar_test_registry::{Content, Server, digest};

use crate::archive::{Layer, Layout};
use crate::{Host, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(&dir.path().join("root"));
    let noise: Vec<u8> = (0u32..1 << 20).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let layer = Layer::default().file("large", 0o644, &noise)?.finish()?;
    let (stalls, half) = (digest(&layer), layer.len() / 2);
    let mut content = Content::default();
    content.image("some/image", "1", std::slice::from_ref(&layer));
    let server = Server::start(None, move |request| {
        let answer = content.answer(request);
        if request.path.contains(&stalls) { answer.stall_after(half) } else { answer }
    })?;
    let name = format!("{}/some/image:1", server.address());
    host.dewar(&["images"]).finish()?.success()?;
    let files = || {
        let mut files = files_below(&host.root);
        // Made by the first that changes anything, and kept.
        files.remove(&host.root.join("images/lock"));
        files
    };
    let before = files();

    for args in [&["pull", "-q", &name][..], &["run", "--rm", &name, "true"], &["create", &name, "true"]] {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let child = host.dewar(args).spawn()?;
            let status = end(&host, child, signal)?;
            ensure!(signal_of(status) == Some(signal), "{args:?} and signal {signal}: {status}");
            ensure!(files() == before, "{args:?} and signal {signal}: {:?}", files());
        }
    }
    let child = host.dewar(&["pull", "-q", &name]).spawn()?;
    end(&host, child, libc::SIGKILL)?;
    host.dewar(&["images"]).finish()?.success()?;
    ensure!(files() == before, "{:?}", files());

    // An archive that never comes to its end.
    let mut archive = Layout::new("large:case", &[layer])?.to_tar()?;
    archive.truncate(half);
    let mut child = host.dewar(&["load", "-q"]).spawn()?;
    let mut input = child.stdin.take();
    std::io::Write::write_all(&mut input.as_mut().expect("a pipe was asked for"), &archive)?;
    let status = end(&host, child, libc::SIGTERM)?;
    drop(input);
    ensure!(signal_of(status) == Some(libc::SIGTERM), "{status}");
    ensure!(files() == before, "{:?}", files());
    host.nothing_left()?;
    Ok(Outcome::Passed)
}

/// Sends a signal once there is half a layer.
fn end(host: &Host, mut child: Child, signal: i32) -> Result<ExitStatus> {
    let tmp = host.root.join("images/tmp");
    for _ in 0..1500 {
        if files_below(&tmp).values().any(|size| *size > 0) || child.try_wait()?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(child.try_wait()?.is_none(), "it ended by itself");
    // SAFETY: a call without pointers, for a child that has not been waited for.
    ensure!(unsafe { libc::kill(child.id().try_into()?, signal) } == 0, "cannot send a signal");
    Ok(child.wait()?)
}

fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}
