//! One repository of a registry: its manifests and blobs.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};

use super::http::{Extra, Http};
use super::login::Login;
use super::trust::{self, Trust};
use super::{MAX_JSON, PullOptions, credentials};
use crate::images::{Digest, Error, Reference, Version};

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Where docker.io answers.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// How often a download that broke off is taken up again, and the first pause before; each is twice the one before it.
const RESUMES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// May be used by several threads.
pub(super) struct Registry {
    http: Http,
    login: Login,
    /// `https://HOST/v2/REPOSITORY/`
    base: Url,
}

impl Registry {
    /// Prepares everything; nothing is asked yet.
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Result<Self, Error> {
        let registry = reference.registry();
        let credentials = credentials::find(registry, options.docker_config.as_deref())?;
        let folders = options.certificates.clone().unwrap_or_else(trust::default_folders);
        let trust = Trust::read(registry, &folders)?;
        let local = is_local(registry);
        // Who lays down certificates for a registry on this machine has it speak https.
        let plain = options.plain_http || (local && trust.is_empty());
        let http = Http::new(reference, trust, plain, local)?;
        let base = base(reference, plain).ok_or_else(|| http.nonsense("its name makes no address"))?;
        Ok(Self { login: Login::new(credentials, reference.repository()), http, base })
    }

    /// A manifest or an index with its digest, which is checked when it is what the reference says.
    pub(super) fn manifest(&self, reference: &Reference) -> Result<(Digest, Vec<u8>), Error> {
        let doing = "find";
        let version = match reference.version() {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        };
        let url = self.url(&format!("manifests/{version}"))?;
        let response =
            self.login.get(&self.http, doing, &url, Extra { accept: Some(MANIFESTS), ..Extra::default() })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Error::NotInRegistry { reference: reference.to_string() }),
            _ => return Err(self.http.refusal(doing, response)),
        }
        let bytes = self.http.body(doing, response, MAX_JSON)?;
        let found = Digest::of(&bytes);
        match reference.version() {
            Version::Digest(expected) if found != *expected => {
                let name = "the manifest".to_owned();
                Err(Error::WrongDigest { name, expected: expected.clone(), found })
            }
            _ => Ok((found, bytes)),
        }
    }

    /// A small blob, checked.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let name = || format!("the blob {digest}");
        if size > MAX_JSON {
            return Err(Error::Nonsense { what: format!("{} is larger than {MAX_JSON} bytes", name()) });
        }
        let mut bytes = Vec::new();
        let mut download = self.download(digest, size)?;
        let read = download.by_ref().take(size.saturating_add(1)).read_to_end(&mut bytes);
        download.check()?;
        read.map_err(|e| self.http.nonsense(&e.to_string()))?;
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
    pub(super) fn download(&self, digest: &Digest, size: u64) -> Result<Download<'_>, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.open(&url, None)?;
        if let Some(found) = response.content_length().filter(|found| *found != size) {
            return Err(Error::WrongSize { name: format!("the blob {digest}"), expected: size, found });
        }
        let (chunk, problem) = (Vec::new(), None);
        Ok(Download { registry: self, url, response, chunk, used: 0, done: 0, size, resumes: 0, problem })
    }

    fn open(&self, url: &Url, from: Option<u64>) -> Result<Response, Error> {
        let doing = "download";
        let response = self.login.get(&self.http, doing, url, Extra { from, ..Extra::default() })?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT if from.is_some() => Ok(response),
            _ => Err(self.http.refusal(doing, response)),
        }
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|_| self.http.nonsense("its name makes no address"))
    }
}

/// A blob that is being read; taken up again where it broke off.
pub(super) struct Download<'r> {
    registry: &'r Registry,
    url: Url,
    response: Response,
    chunk: Vec<u8>,
    /// Bytes of the chunk that were read.
    used: usize,
    /// Bytes that came.
    done: u64,
    size: u64,
    resumes: u32,
    problem: Option<Error>,
}

impl Download<'_> {
    /// Why reading failed, if it did, which whoever reads cannot say as well.
    pub(super) fn check(self) -> Result<(), Error> {
        self.problem.map_or(Ok(()), Err)
    }

    /// Gets more bytes; none at the end.
    fn fill(&mut self) -> Result<(), Error> {
        self.used = 0;
        let http = &self.registry.http;
        loop {
            let outcome = http.chunk(&mut self.response, &mut self.chunk);
            self.done = self.done.saturating_add(self.chunk.len() as u64);
            match outcome {
                Ok(()) => return Ok(()),
                // More than there is to come is not asked for.
                Err(error) if self.resumes >= RESUMES || self.done >= self.size => {
                    return Err(http.failed("download", &error));
                }
                Err(_) => self.resume()?,
            }
        }
    }

    fn resume(&mut self) -> Result<(), Error> {
        std::thread::sleep(PAUSE.saturating_mul(1 << self.resumes));
        self.resumes += 1;
        let response = self.registry.open(&self.url, Some(self.done))?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let fits = range.is_some_and(|range| range.starts_with(&format!("bytes {}-", self.done)));
        if response.status() == StatusCode::PARTIAL_CONTENT && fits {
            self.response = response;
            Ok(())
        } else {
            Err(self.registry.http.nonsense("a download broke off, and it does not send the rest alone"))
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.problem.is_some() {
            return Err(io::Error::other("the download failed"));
        }
        if self.used >= self.chunk.len()
            && let Err(error) = self.fill()
        {
            let text = error.to_string();
            self.problem = Some(error);
            return Err(io::Error::other(text));
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

fn base(reference: &Reference, plain: bool) -> Option<Url> {
    let scheme = if plain { "http" } else { "https" };
    let host = if reference.registry() == "docker.io" { DOCKER_HUB } else { reference.registry() };
    Url::parse(&format!("{scheme}://{host}/v2/{}/", reference.repository())).ok()
}

/// Whether a registry is on this machine, where nobody listens in.
fn is_local(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => registry,
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn names_lead_to_addresses() {
        for (name, plain, address) in [
            ("busybox", false, "https://registry-1.docker.io/v2/library/busybox/"),
            ("index.docker.io/a/b", false, "https://registry-1.docker.io/v2/a/b/"),
            ("quay.io/a/b/c:1", false, "https://quay.io/v2/a/b/c/"),
            ("[::1]:5000/a", true, "http://[::1]:5000/v2/a/"),
        ] {
            assert_eq!(base(&Reference::parse(name).unwrap(), plain).unwrap().as_str(), address);
        }
        let registry = Registry::new(&Reference::parse("x.example/a").unwrap(), &PullOptions::default()).unwrap();
        let digest = Digest::of(b"");
        let url = registry.url(&format!("blobs/{digest}")).unwrap();
        assert_eq!(url.as_str(), format!("https://x.example/v2/a/blobs/{digest}"));
    }
}
