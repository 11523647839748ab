//! A name without a registry is docker.io's: the registry, its token server, the key of its credentials and the folder of its
//! certificates are those that docker uses. Ours is a proxy that leads to itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dewar_test_registry::{Authority, Content, Demand, Guard, PASSWORD, Server, USER};

use crate::archive::Layer;
use crate::{Finished, Host, Outcome, Session};

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(&dir.path().join("root"));
    let mut content = Content::default();
    content.image("library/small", "latest", &[Layer::default().file("own", 0o644, b"from afar\n")?.finish()?]);
    let guard = Guard::new(Demand::TokenForPassword, "library/small");
    let authority = Authority::new("a case")?;
    let certified = authority.certify(&["registry-1.docker.io", "auth.docker.io"])?;
    let server = Server::start(Some(certified.server(None)?), move |request| guard.answer(request, |r| content.answer(r)))?;

    pull(&host, dir.path(), &server)?.exits(1)?.complains("is not trusted")?.complains("certs.d/docker.io/ca.crt")?;
    let bare = session(&host, dir.path(), &server)?.env("SSL_CERT_FILE", "/none").env("SSL_CERT_DIR", "/none");
    bare.finish()?.exits(1)?.complains("knows no authorities at all")?.complains("ca-certificates")?;
    let folder = dir.path().join("config/containers/certs.d/docker.io");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("ca.crt"), authority.certificate())?;
    pull(&host, dir.path(), &server)?.exits(1)?.complains("does not let us pull small:latest")?;

    let docker = dir.path().join("docker");
    fs::create_dir_all(&docker)?;
    // What a helper knows comes before what is written down.
    let wrong = r#""auths": {"https://index.docker.io/v1/": {"username": "user", "password": "wrong"}}"#;
    fs::write(docker.join("config.json"), format!("{{\"credsStore\": \"case\", {wrong}}}"))?;
    helper(dir.path(), "echo locked; exit 1")?;
    pull(&host, dir.path(), &server)?.exits(1)?.complains("Cannot get the credentials for docker.io")?.complains("locked")?;
    let asked = dir.path().join("asked");
    let known = format!(r#"{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}"#);
    helper(dir.path(), &format!("cat > {}; echo '{known}'", asked.display()))?;
    let out = pull(&host, dir.path(), &server)?.success()?;
    ensure!(out.trim() == "docker.io/library/small:latest", "{out}");
    let asked = fs::read_to_string(asked)?;
    ensure!(asked == "https://index.docker.io/v1/", "the helper was asked for {asked}");

    let requests = server.requests();
    let last = requests.iter().rev().take(5).collect::<Vec<_>>();
    for request in &last {
        let expected = if request.path == "/token" { "auth.docker.io" } else { "registry-1.docker.io" };
        let asked = request.header("host").context("a request without a host")?;
        ensure!(request.secure && asked == expected, "{request:?}");
    }
    ensure!(last.iter().filter(|r| r.path == "/token").count() == 1, "{last:?}");
    host.nothing_left()?;
    Ok(Outcome::Passed)
}

fn pull(host: &Host, dir: &Path, server: &Server) -> Result<Finished> {
    session(host, dir, server)?.finish()
}

fn session(host: &Host, dir: &Path, server: &Server) -> Result<Session> {
    let path = std::env::var("PATH")?;
    let session = host
        .dewar(&["pull", "-q", "small"])
        .env("HTTPS_PROXY", format!("http://{}", server.address()))
        .env("NO_PROXY", "")
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("DOCKER_CONFIG", dir.join("docker"))
        .env("PATH", format!("{}:{path}", dir.join("bin").display()));
    Ok(session)
}

/// A credential helper of the name that the configuration has.
fn helper(dir: &Path, script: &str) -> Result<()> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    let program = bin.join("docker-credential-case");
    fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
