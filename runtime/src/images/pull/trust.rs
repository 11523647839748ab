//! Whom to believe to be a registry: the authorities of the host, and those of docker's and containers' `certs.d`.
//!
//! Below each of these folders a folder that is called as the registry, `HOST` or `HOST:PORT`, has certificates of more
//! authorities as `*.crt`, and for registries that ask their clients for one, a pair `*.cert` and `*.key`. They count for
//! this registry alone, and for where it sends its clients.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::images::Error;

/// What an administrator laid down about a registry.
#[derive(Default)]
pub(super) struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// The folders that docker and podman look into, the user's own first.
pub(super) fn default_folders() -> Vec<PathBuf> {
    let set = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let own = config.iter().flat_map(|c| [c.join("containers/certs.d"), c.join("docker/certs.d")]);
    own.chain(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]).collect()
}

impl Trust {
    /// Reads what the folders have about a registry.
    pub(super) fn read(registry: &str, folders: &[PathBuf]) -> Result<Self, Error> {
        let mut trust = Self::default();
        for folder in folders {
            let folder = folder.join(registry);
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(e) => return Err(Error::io("read", &folder)(e)),
            };
            let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
            let mut paths = paths.map_err(Error::io("read", &folder))?;
            paths.sort();
            for path in paths {
                match path.extension().and_then(|e| e.to_str()) {
                    Some("crt") => trust.authorities.extend(certificates(&path)?),
                    Some("cert") if trust.client.is_none() => {
                        trust.client = Some((certificates(&path)?, key(&path.with_extension("key"))?));
                    }
                    _ => {}
                }
            }
        }
        Ok(trust)
    }

    /// Whether anything was laid down.
    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.client.is_none()
    }

    /// The rules of a connection.
    pub(super) fn client_config(self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        // What of it cannot be read is as if it were not there: most hosts have some that are of no use.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(self.authorities.iter().cloned());
        // This fails when there are none at all.
        let chains = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().ok();
        let verifier = Verifier { chains, pinned: self.authorities, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        match self.client {
            Some((chain, key)) => config.with_client_auth_cert(chain, key),
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| Error::Certificate { path: path.to_path_buf() })
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| Error::Certificate { path: path.to_path_buf() })
}

/// There is nobody to believe. Nothing else here fails like this.
const NO_AUTHORITIES: CertificateError = CertificateError::ApplicationVerificationFailure;

/// Believes chains of certificates, and a certificate that was laid down itself.
#[derive(Debug)]
struct Verifier {
    chains: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        let Some(chains) = &self.chains else { return Err(NO_AUTHORITIES.into()) };
        let outcome = chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match outcome {
            Err(rustls::Error::InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
            ))
            | Ok(_) => outcome,
            // Docker's manual has the server's own certificate laid down, which `openssl req -x509` makes an authority's:
            // as part of a chain that is refused. Its dates were looked at before.
            Err(_) if self.pinned.iter().any(|pinned| pinned == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(_) => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with a registry's certificate, when that is an error's cause.
pub(super) fn problem(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    match cause.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(problem)) => Some(describe(problem)),
        _ => None,
    }
}

fn describe(problem: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    match problem {
        UnknownIssuer => "its authority is unknown to this host".to_owned(),
        BadSignature => "its authority is not the one that this host knows by that name".to_owned(),
        Expired | ExpiredContext { .. } => "it has expired".to_owned(),
        NotValidForName | NotValidForNameContext { .. } => "it is for another name".to_owned(),
        problem if *problem == NO_AUTHORITIES => {
            "this host knows no authorities at all (the package ca-certificates has them)".to_owned()
        }
        other => other.to_string(),
    }
}
