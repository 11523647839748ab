//! Who to be to a registry, from docker's `config.json`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::images::Error;

/// What docker files its own registry under.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

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
pub(super) fn find(registry: &str, folder: Option<&Path>) -> Result<RegistryAuth, Error> {
    let Some(folder) = folder.map(Path::to_path_buf).or_else(default_folder) else {
        return Ok(RegistryAuth::Anonymous);
    };
    let path = folder.join("config.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(e) => return Err(Error::io("read", &path)(e)),
    };
    let config: Config =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { what: path.display().to_string(), source })?;
    let key = if registry == "docker.io" { DOCKER_HUB } else { registry };
    let helper = config.cred_helpers.iter().find(|(name, _)| is_for(name, registry)).map(|(_, helper)| helper);
    if let Some(helper) = helper.or(config.creds_store.as_ref()) {
        return ask(helper, key).map_err(|problem| Error::Credentials { registry: registry.to_owned(), problem });
    }
    match config.auths.iter().find(|(name, _)| is_for(name, registry)) {
        Some((_, auth)) => from_entry(auth)
            .map_err(|problem| Error::Credentials { registry: registry.to_owned(), problem: problem.to_owned() }),
        None => Ok(RegistryAuth::Anonymous),
    }
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

fn from_entry(entry: &Auth) -> Result<RegistryAuth, &'static str> {
    if !entry.registrytoken.is_empty() {
        return Ok(RegistryAuth::Bearer(entry.registrytoken.clone()));
    }
    if !entry.identitytoken.is_empty() {
        return Err(
            "docker's configuration has an identity token for it, which is not supported yet; log in with a password",
        );
    }
    if entry.auth.is_empty() {
        return Ok(if entry.username.is_empty() {
            RegistryAuth::Anonymous
        } else {
            RegistryAuth::Basic(entry.username.clone(), entry.password.clone())
        });
    }
    let pair = decode_base64(entry.auth.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (user, password) = pair.ok_or("its entry in docker's configuration is not user:password in base64")?;
    Ok(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}

/// Runs `docker-credential-HELPER get`.
fn ask(helper: &str, key: &str) -> Result<RegistryAuth, String> {
    if helper.is_empty() || helper.contains('/') {
        return Err(format!("{helper:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let spawned =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = spawned.map_err(|e| format!("cannot run {program}, which docker's configuration names: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not listen says on its output why.
        let _ = stdin.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| format!("cannot read the answer of {program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        if text.contains("credentials not found") {
            return Ok(RegistryAuth::Anonymous);
        }
        return Err(format!("{program}: {}", text.trim()));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("{program} gave no answer of its kind: {e}"))?;
    if answer.username == "<token>" {
        return Err(format!(
            "{program} has an identity token for it, which is not supported yet; log in with a password"
        ));
    }
    Ok(RegistryAuth::Basic(answer.username, answer.secret))
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in text.iter().take_while(|b| **b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(json: &str, registry: &str) -> Result<RegistryAuth, Error> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), json).unwrap();
        find(registry, Some(dir.path()))
    }

    #[test]
    fn entries_are_found_as_docker_files_them() {
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
            "localhost:5000": {"username": "u", "password": "p"},
            "https://quay.io": {"registrytoken": "t"},
            "old.example": {"identitytoken": "i"},
            "bad.example": {"auth": "%%%"},
            "empty.example": {}
        }, "HttpHeaders": {"a": "b"}}"#;
        let basic = |u: &str, p: &str| RegistryAuth::Basic(u.to_owned(), p.to_owned());
        assert_eq!(find_in(json, "docker.io").unwrap(), basic("user", "pa:ss"));
        assert_eq!(find_in(json, "localhost:5000").unwrap(), basic("u", "p"));
        assert_eq!(find_in(json, "quay.io").unwrap(), RegistryAuth::Bearer("t".to_owned()));
        assert_eq!(find_in(json, "empty.example").unwrap(), RegistryAuth::Anonymous);
        assert_eq!(find_in(json, "other.example").unwrap(), RegistryAuth::Anonymous);
        assert!(matches!(find_in(json, "old.example"), Err(Error::Credentials { .. })));
        assert!(matches!(find_in(json, "bad.example"), Err(Error::Credentials { .. })));
        assert!(matches!(find_in("{", "x"), Err(Error::Json { .. })));
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(find("x", Some(nowhere.path())).unwrap(), RegistryAuth::Anonymous);
    }

    #[test]
    fn a_helper_that_is_missing_is_named() {
        let json =
            r#"{"auths": {"a.example": {}}, "credsStore": "that-nobody-has", "credHelpers": {"b.example": "../x"}}"#;
        let text = find_in(json, "a.example").unwrap_err().to_string();
        assert!(text.contains("docker-credential-that-nobody-has"), "{text}");
        assert!(matches!(find_in(json, "b.example"), Err(Error::Credentials { .. })));
    }
}
