//! Pulls from Debian's `docker-registry`, run on the loopback, what `skopeo` pushed to it. Where one of them is missing, each
//! test prints that and passes.

mod client;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use client::{Client, layer};
use dewar_runtime::images::{Digest, Error, Event, Progress, Reference, Silent, Version};
use serde_json::{Value, json};

/// `user:secret` in the form of `htpasswd -B`.
const HTPASSWD: &str = "user:$2b$04$is8kNfE6wlD66yrIGWrI6ukdszFtyJVOAtD2/PhOGMLRRRVtuPglm\n";

struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
}

impl Registry {
    /// Starts one, or says why not.
    fn start(login: bool) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|d| d.join(program).exists()) {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": address},
        });
        if login {
            let file = dir.path().join("htpasswd");
            fs::write(&file, HTPASSWD).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": file}});
        }
        // JSON is YAML.
        let path = dir.path().join("config.yml");
        fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().any(|line| line.unwrap().contains("listening on"));
        let registry = Self { child, dir, address };
        assert!(ready, "docker-registry ended before it listened");
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.count());
        Some(registry)
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    fn push(&self, layout: &Path, name: &str, extra: &[&str]) {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--preserve-digests"])
            .args(extra)
            .arg(format!("oci:{}:x", layout.display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Where the registry keeps a blob.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().expect("the test's own registry can be killed");
        self.child.wait().expect("the test's own registry can be waited for");
    }
}

/// An OCI layout on disk.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(dir)
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.0.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.to_string(), "size": bytes.len()})
    }

    fn image(&self, layers: &[Vec<u8>], architecture: &str) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob("config.v1+json", config.to_string().as_bytes());
        let layers: Vec<_> =
            layers.iter().map(|l| self.blob("layer.v1.tar+zstd", &zstd::encode_all(&**l, 1).unwrap())).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let mut descriptor = self.blob("manifest.v1+json", manifest.to_string().as_bytes());
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    fn finish(&self, mut descriptor: Value) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "x"});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<&'static str>>);

impl Progress for Log {
    fn event(&self, event: Event<'_>) {
        let name = match event {
            Event::LayerExists { .. } => "exists",
            Event::LayerDone { .. } => "done",
            _ => return,
        };
        self.0.lock().unwrap().push(name);
    }
}

#[test]
fn an_image_is_pulled_once() {
    let Some(registry) = Registry::start(false) else { return };
    let layers: Vec<_> = (0..5).map(|i| layer(&format!("file-{i}"), 3_000_000)).collect();
    let layout = Layout::new();
    layout.finish(layout.image(&layers, "amd64"));
    registry.push(layout.0.path(), "a/b:1", &[]);

    let client = Client::new();
    let reference = registry.reference("a/b:1");
    let log = Log::default();
    let first = client.pull(&reference, &log).unwrap();
    assert_eq!(log.0.into_inner().unwrap(), ["done"; 5]);
    let diff_ids: Vec<_> = first.image.layers.iter().map(|l| l.diff_id.clone()).collect();
    assert_eq!(diff_ids, layers.iter().map(|l| Digest::of(l)).collect::<Vec<_>>());
    assert!(first.newer);
    assert_eq!(first.image.references, [reference.clone(), reference.with_digest(first.digest.clone())]);
    assert_eq!(client.store.resolve(&reference.to_string()).unwrap().id, first.image.id);

    let log = Log::default();
    let again = client.pull(&reference, &log).unwrap();
    assert_eq!((again.newer, log.0.into_inner().unwrap()), (false, vec!["exists"; 5]));
    let by_digest = Client::new().pull(&reference.with_digest(first.digest.clone()), &Silent).unwrap();
    assert_eq!(by_digest.image.id, first.image.id);
    assert!(matches!(by_digest.image.references[0].version(), Version::Digest(d) if *d == first.digest));

    for missing in ["a/b:2", "none:1"] {
        let error = Client::new().refusal(&registry.reference(missing));
        assert!(matches!(error, Error::NotInRegistry { .. }), "{error:?}");
    }
}

#[test]
fn of_several_platforms_this_one_is_pulled() {
    let Some(registry) = Registry::start(false) else { return };
    let (here, there) = (vec![layer("here", 10)], vec![layer("there", 10)]);
    let layout = Layout::new();
    let manifests = [layout.image(&there, "arm64"), layout.image(&here, "amd64")];
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    layout.finish(layout.blob("index.v1+json", index.to_string().as_bytes()));
    registry.push(layout.0.path(), "multi", &["--all"]);
    let pulled = Client::new().pull(&registry.reference("multi"), &Silent).unwrap();
    assert_eq!(pulled.image.layers[0].diff_id, Digest::of(&here[0]));
    assert_eq!(pulled.digest, Digest::of(index.to_string().as_bytes()));

    let layout = Layout::new();
    layout.finish(layout.image(&there, "arm64"));
    registry.push(layout.0.path(), "other", &[]);
    let error = Client::new().refusal(&registry.reference("other"));
    assert!(matches!(&error, Error::NoPlatform { present, .. } if present == "linux/arm64"), "{error:?}");
}

#[test]
fn what_a_registry_gets_wrong_is_refused() {
    let Some(registry) = Registry::start(false) else { return };
    let layers = vec![layer("a", 100_000)];
    let layout = Layout::new();
    layout.finish(layout.image(&layers, "amd64"));
    registry.push(layout.0.path(), "bad", &[]);
    let blob = registry.blob(&Digest::of(&zstd::encode_all(&*layers[0], 1).unwrap()));
    let good = fs::read(&blob).unwrap();
    let reference = registry.reference("bad");

    let mut changed = good.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&blob, &changed).unwrap();
    let error = Client::new().refusal(&reference);
    assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");

    // Another layer that is fine in itself.
    fs::write(&blob, zstd::encode_all(&*layer("b", 100_000), 1).unwrap()).unwrap();
    let error = Client::new().refusal(&reference);
    assert!(matches!(error, Error::WrongDigest { .. } | Error::WrongSize { .. }), "{error:?}");

    fs::write(&blob, &good[..middle]).unwrap();
    let error = Client::new().refusal(&reference);
    assert!(matches!(error, Error::WrongSize { .. } | Error::Io { .. }), "{error:?}");

    fs::remove_file(&blob).unwrap();
    Client::new().refusal(&reference);
    fs::write(&blob, &good).unwrap();
    Client::new().pull(&reference, &Silent).unwrap();
}

#[test]
fn a_login_is_taken_from_docker() {
    let Some(registry) = Registry::start(true) else { return };
    let layout = Layout::new();
    layout.finish(layout.image(&[layer("a", 10)], "amd64"));
    registry.push(layout.0.path(), "private", &["--dest-creds=user:secret"]);
    let reference = registry.reference("private");
    let client = Client::new();
    assert!(matches!(client.refusal(&reference), Error::Denied { .. }));
    let file = client.dir.path().join("config.json");
    let config = |auth: &str| json!({"auths": {&registry.address: {"auth": auth}}}).to_string();
    fs::write(&file, config("dXNlcjp3cm9uZw==")).unwrap();
    assert!(matches!(client.refusal(&reference), Error::Denied { .. }));
    fs::write(&file, config("dXNlcjpzZWNyZXQ=")).unwrap();
    client.pull(&reference, &Silent).unwrap();
}

#[test]
fn nobody_listening_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference = Reference::parse(&format!("{address}/a:1")).unwrap();
    let error = Client::new().refusal(&reference);
    assert!(matches!(error, Error::Registry { .. }), "{error:?}");
}
