//! A registry as blocking calls.

use std::io::{self, Read};
use std::time::Duration;

use futures_util::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use tokio::runtime::{self, Runtime};

use super::credentials;
use super::{MAX_JSON, PullOptions};
use crate::images::{Digest, Error, Reference, Version};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a registry may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// One repository of a registry. May be used by several threads.
pub(super) struct Registry {
    runtime: Runtime,
    client: Client,
    auth: RegistryAuth,
    repository: oci_client::Reference,
    /// For messages.
    name: String,
}

impl Registry {
    pub(super) fn connect(reference: &Reference, options: &PullOptions) -> Result<Self, Error> {
        let registry = reference.registry();
        let auth = credentials::find(registry, options.docker_config.as_deref())?;
        let plain = options.plain_http || is_local(registry);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("dewar/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let name = reference.to_string();
        // One thread of its own moves the bytes of all downloads; others only wait for them.
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| failed("start the client for", &name)(e.into()))?;
        let client = Client::try_from(config).map_err(failed("prepare the client for", &name))?;
        let repository = convert(reference);
        let access = client.auth(&repository, &auth, RegistryOperation::Pull);
        runtime.block_on(access).map_err(failed("log in to the registry of", &name))?;
        Ok(Self { runtime, client, auth, repository, name })
    }

    /// A manifest or an index with its digest, which is checked when it is what the reference says.
    pub(super) fn manifest(&self, reference: &Reference) -> Result<(Digest, Vec<u8>), Error> {
        let image = convert(reference);
        let call = self.client.pull_manifest_raw(&image, &self.auth, &MANIFESTS);
        let (bytes, _) = self.runtime.block_on(call).map_err(|e| self.refused("find", e))?;
        let found = Digest::of(&bytes);
        match reference.version() {
            Version::Digest(expected) if found != *expected => {
                let name = "the manifest".to_owned();
                Err(Error::WrongDigest { name, expected: expected.clone(), found })
            }
            _ => Ok((found, bytes.to_vec())),
        }
    }

    /// A small blob, checked.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let name = || format!("the blob {digest}");
        if size > MAX_JSON {
            return Err(Error::Nonsense { what: format!("{} is larger than {MAX_JSON} bytes", name()) });
        }
        let mut bytes = Vec::new();
        let stream = self.stream(digest, size)?;
        stream
            .take(size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|e| self.refused("read the configuration of", e.into()))?;
        if bytes.len() as u64 != size {
            return Err(Error::WrongSize { name: name(), expected: size, found: bytes.len() as u64 });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::WrongDigest { name: name(), expected: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// A blob as it comes. Must be read by a thread that is not the runtime's.
    pub(super) fn stream(&self, digest: &Digest, size: u64) -> Result<impl Read + use<'_>, Error> {
        let size = i64::try_from(size).map_err(|_| Error::Nonsense { what: format!("the size of {digest}") })?;
        let descriptor = OciDescriptor { digest: digest.to_string(), size, ..OciDescriptor::default() };
        let call = self.client.pull_blob_stream(&self.repository, &descriptor);
        let stream = self.runtime.block_on(call).map_err(|e| self.refused("download", e))?;
        Ok(Download { runtime: &self.runtime, stream: stream.stream, chunk: Vec::new(), used: 0 })
    }

    fn refused(&self, doing: &'static str, error: OciDistributionError) -> Error {
        failed(doing, &self.name)(error)
    }
}

struct Download<'a, S> {
    runtime: &'a Runtime,
    stream: S,
    chunk: Vec<u8>,
    used: usize,
}

impl<S, B> Read for Download<'_, S>
where
    S: futures_util::Stream<Item = io::Result<B>> + Unpin,
    B: AsRef<[u8]>,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used >= self.chunk.len() {
            match self.runtime.block_on(self.stream.next()) {
                Some(chunk) => {
                    self.chunk.clear();
                    self.chunk.extend_from_slice(chunk?.as_ref());
                    self.used = 0;
                }
                None => return Ok(0),
            }
        }
        let rest = self.chunk.get(self.used..).unwrap_or_default();
        let amount = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..amount), rest.get(..amount)) {
            to.copy_from_slice(from);
        }
        self.used = self.used.saturating_add(amount);
        Ok(amount)
    }
}

fn failed(doing: &'static str, reference: &str) -> impl FnOnce(OciDistributionError) -> Error {
    let reference = reference.to_owned();
    move |source| match source {
        OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
            Error::Denied { reference }
        }
        OciDistributionError::ImageManifestNotFoundError(_) => Error::NotInRegistry { reference },
        OciDistributionError::RegistryError { ref envelope, .. }
            if envelope.errors.iter().any(|e| {
                use oci_client::errors::OciErrorCode::{ManifestUnknown, NameUnknown, NotFound};
                matches!(e.code, ManifestUnknown | NameUnknown | NotFound)
            }) =>
        {
            Error::NotInRegistry { reference }
        }
        source => Error::Registry { doing, reference, source: Box::new(source) },
    }
}

fn convert(reference: &Reference) -> oci_client::Reference {
    let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    match reference.version() {
        Version::Tag(tag) => oci_client::Reference::with_tag(registry, repository, tag.clone()),
        Version::Digest(digest) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
    }
}

/// Whether a registry is on this machine, where nobody listens in.
fn is_local(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => registry,
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_this_machine_is_local() {
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:80", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for remote in ["docker.io", "localhost.example:5000", "10.0.0.1:5000", "[2001:db8::1]:80", "127.0.0.1.example"]
        {
            assert!(!is_local(remote), "{remote}");
        }
    }
}
