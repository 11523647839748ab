//! Who to be to a registry, from docker's `config.json`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::base64;
use crate::images::Error;

/// What docker files its own registry under.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The user name that credential helpers give an identity token.
const IDENTITY: &str = "<token>";

#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(super) enum Credentials {
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// Stands for a password with token servers.
    Identity(String),
    /// Shown to the registry itself.
    Token(String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a credential helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The credentials for a registry; anonymous when docker knows none.
pub(super) fn find(registry: &str, folder: Option<&Path>) -> Result<Credentials, Error> {
    let Some(folder) = folder.map(Path::to_path_buf).or_else(default_folder) else {
        return Ok(Credentials::Anonymous);
    };
    let path = folder.join("config.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Credentials::Anonymous),
        Err(e) => return Err(Error::io("read", &path)(e)),
    };
    let config: Config =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { what: path.display().to_string(), source })?;
    let failed = |problem| Error::Credentials { registry: registry.to_owned(), problem };
    // An empty helper for one registry means that none is asked about it.
    let helper = entry(&config.cred_helpers, registry).or(config.creds_store.as_ref()).filter(|h| !h.is_empty());
    if let Some(helper) = helper {
        if helper.contains('/') {
            return Err(failed(format!("{helper:?} is no name of a credential helper")));
        }
        let program = format!("docker-credential-{helper}");
        return ask(Path::new(&program), key(registry)).map_err(failed);
    }
    entry(&config.auths, registry)
        .map_or(Ok(Credentials::Anonymous), |entry| from_entry(entry).map_err(|problem| failed(problem.to_owned())))
}

/// What docker calls a registry in its files.
fn key(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB } else { registry }
}

/// What a file has about a registry: best of all under the very name that docker gives it.
fn entry<'a, T>(entries: &'a BTreeMap<String, T>, registry: &str) -> Option<&'a T> {
    let similar = || entries.iter().find(|(name, _)| is_for(name, registry)).map(|(_, entry)| entry);
    entries.get(key(registry)).or_else(similar)
}

fn default_folder() -> Option<PathBuf> {
    let given = env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    given.or_else(|| Some(Path::new(&env::var_os("HOME").filter(|v| !v.is_empty())?).join(".docker")))
}

/// Whether an entry, which is a host or an URL, means this registry.
fn is_for(entry: &str, registry: &str) -> bool {
    let bare = entry.strip_prefix("https://").or_else(|| entry.strip_prefix("http://")).unwrap_or(entry);
    let host = bare.split('/').next().unwrap_or(bare);
    host == registry || (registry == "docker.io" && host == "index.docker.io")
}

fn from_entry(entry: &Auth) -> Result<Credentials, &'static str> {
    if !entry.registrytoken.is_empty() {
        return Ok(Credentials::Token(entry.registrytoken.clone()));
    }
    if !entry.identitytoken.is_empty() {
        return Ok(Credentials::Identity(entry.identitytoken.clone()));
    }
    if entry.auth.is_empty() {
        return Ok(if entry.username.is_empty() {
            Credentials::Anonymous
        } else {
            Credentials::Password { user: entry.username.clone(), password: entry.password.clone() }
        });
    }
    let pair = base64::decode(entry.auth.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (user, password) = pair.ok_or("its entry in docker's configuration is not user:password in base64")?;
    Ok(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
}

/// Runs `docker-credential-HELPER get`.
fn ask(program: &Path, key: &str) -> Result<Credentials, String> {
    let shown = program.display();
    let spawned =
        Command::new(program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = spawned.map_err(|e| format!("cannot run {shown}, which docker's configuration names: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not listen says on its output why.
        let _ = stdin.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| format!("cannot read the answer of {shown}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if text.contains("credentials not found") {
            return Ok(Credentials::Anonymous);
        }
        let said = if text.trim().is_empty() { output.status.to_string() } else { text.trim().to_owned() };
        return Err(format!("{shown}: {said}"));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("{shown} gave no answer of its kind: {e}"))?;
    Ok(match (answer.username.as_str(), answer.secret.as_str()) {
        (_, "") => Credentials::Anonymous,
        (IDENTITY, _) => Credentials::Identity(answer.secret),
        _ => Credentials::Password { user: answer.username, password: answer.secret },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn find_in(json: &str, registry: &str) -> Result<Credentials, Error> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), json).unwrap();
        find(registry, Some(dir.path()))
    }

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn entries_are_found_as_docker_files_them() {
        let json = r#"{"auths": {
            "docker.io": {"username": "not", "password": "this"},
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
            "https://index.docker.io/v1/access-token": {"username": "nor", "password": "this"},
            "localhost:5000": {"username": "u", "password": "p"},
            "https://quay.io": {"registrytoken": "t"},
            "id.example": {"auth": "dXNlcjo=", "identitytoken": "i"},
            "bad.example": {"auth": "%%%"},
            "empty.example": {}
        }, "HttpHeaders": {"a": "b"}}"#;
        assert_eq!(find_in(json, "docker.io").unwrap(), password("user", "pa:ss"));
        assert_eq!(find_in(json, "localhost:5000").unwrap(), password("u", "p"));
        assert_eq!(find_in(json, "quay.io").unwrap(), Credentials::Token("t".to_owned()));
        assert_eq!(find_in(json, "id.example").unwrap(), Credentials::Identity("i".to_owned()));
        assert_eq!(find_in(json, "empty.example").unwrap(), Credentials::Anonymous);
        assert_eq!(find_in(json, "other.example").unwrap(), Credentials::Anonymous);
        assert!(matches!(find_in(json, "bad.example"), Err(Error::Credentials { .. })));
        assert!(matches!(find_in("{", "x"), Err(Error::Json { .. })));
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(find("x", Some(nowhere.path())).unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn a_helper_comes_before_what_is_written_down() {
        let json = r#"{"auths": {"a.example": {}, "c.example": {"username": "u", "password": "p"}},
            "credsStore": "that-nobody-has",
            "credHelpers": {"b.example": "../x", "c.example": "", "https://index.docker.io/v1/": "for-the-hub"}}"#;
        let text = |registry| find_in(json, registry).unwrap_err().to_string();
        assert!(text("a.example").contains("cannot run docker-credential-that-nobody-has"), "{}", text("a.example"));
        assert!(text("docker.io").contains("docker-credential-for-the-hub"), "{}", text("docker.io"));
        assert!(text("b.example").contains("no name of a credential helper"), "{}", text("b.example"));
        assert_eq!(find_in(json, "c.example").unwrap(), password("u", "p"));
    }

    #[test]
    fn a_helper_is_asked_as_docker_asks() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-test");
        let answer = |script: &str| {
            fs::write(&program, format!("#!/bin/sh\nread -r key; {script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            // Another test's fork may hold the file open for writing until its exec.
            loop {
                match ask(&program, "https://index.docker.io/v1/") {
                    Err(problem) if problem.contains("Text file busy") => std::thread::yield_now(),
                    answer => return answer,
                }
            }
        };
        let told = answer(r#"echo "{\"ServerURL\":\"x\",\"Username\":\"$1\",\"Secret\":\"$key\"}""#).unwrap();
        assert_eq!(told, password("get", DOCKER_HUB));
        let told = answer(r#"echo '{"Username":"<token>","Secret":"i"}'"#).unwrap();
        assert_eq!(told, Credentials::Identity("i".to_owned()));
        let told = answer(r#"echo '{"Username":"","Secret":""}'"#).unwrap();
        assert_eq!(told, Credentials::Anonymous);
        let told = answer("echo credentials not found in native keychain; exit 1").unwrap();
        assert_eq!(told, Credentials::Anonymous);
        assert!(answer("echo locked; exit 1").unwrap_err().ends_with("docker-credential-test: locked"));
        assert!(answer("exit 3").unwrap_err().contains("exit status: 3"));
        assert!(answer("echo hm").unwrap_err().contains("no answer of its kind"));
    }
}
