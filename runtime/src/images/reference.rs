//! Names of images, as docker reads and shortens them: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;

use super::{Digest, Error};

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// A name within a registry, with a tag, or, when it must be exactly one image, with a manifest's digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// Reads a name; what is left out is filled in. With both a tag and a digest, the digest counts.
    ///
    /// # Errors
    /// [`Error::InvalidReference`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |problem| Error::InvalidReference { reference: text.to_owned(), problem };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest).ok_or_else(|| bad("its digest is not one"))?)),
            None => (text, None),
        };
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match name.get(slash..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let (path, tag) = name.split_at(slash + colon);
                (path, tag.get(1..))
            }
            None => (name, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad("its tag is not one"));
        }
        let (registry, rest) = match path.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, path),
        };
        if !is_host(registry) {
            return Err(bad("its registry is not a host name"));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let mut repository = rest.to_owned();
        if registry == DEFAULT_REGISTRY && !rest.contains('/') {
            repository.insert_str(0, DEFAULT_NAMESPACE);
        }
        if rest.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(bad("a repository's name is in lower case"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(bad("a name consists of lower-case letters, digits and single separators"));
        }
        let version = match digest {
            Some(digest) => Version::Digest(digest),
            None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, version })
    }

    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The same repository, by a manifest's digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }

    /// With nothing left out.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.registry, self.repository, self.version)
    }

    /// The repository as docker shows it: `busybox`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        let short = self.repository.strip_prefix(DEFAULT_NAMESPACE).filter(|s| !s.contains('/'));
        short.unwrap_or(&self.repository).to_owned()
    }
}

/// As docker shows it: `busybox:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_repository(), self.version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// Docker's rule for what is a registry and what the first part of a repository.
fn is_registry(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':']) || component.chars().any(|c| c.is_ascii_uppercase())
}

/// A host name or an address, and a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let digits = |p: &str| !p.is_empty() && p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit());
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && !l.is_empty() && !l.starts_with('-') && !l.ends_with('-')
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host_fits && port.is_none_or(digits)
}

fn is_tag(tag: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !tag.is_empty() && tag.len() <= 128 && !tag.starts_with(['.', '-']) && tag.bytes().all(good)
}

/// Letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    word(*first)
        && word(*last)
        && bytes
            .split(|b| word(*b))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (text, canonical, shown) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("quay.io/a_b/c--d:V1", "quay.io/a_b/c--d:V1", "quay.io/a_b/c--d:V1"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.canonical().as_str(), reference.to_string().as_str()), (canonical, shown));
            assert_eq!(Reference::parse(canonical).unwrap(), reference);
        }
        let digest = Digest::of(b"");
        let both = Reference::parse(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("busybox@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            ":",
            "a:",
            "a:-x",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "../a",
            "a@sha256:0",
            "a b",
            "x.y/",
            "x.y:/a",
            "x.y:1:2/a",
            "[::1/a",
            "-x.y/a",
            "h\u{e9}.io/a",
            "a:b:c",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Reference::parse(&"a".repeat(300)).is_err());
    }
}
