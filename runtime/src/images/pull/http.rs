//! HTTP as blocking calls, with everything that a server says bounded.

use std::io;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::runtime::{self, Runtime};

use super::trust::{self, Trust};
use crate::images::{Error, Reference};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a server may send us to another place.
const MAX_REDIRECTS: usize = 10;

/// How much of what a server says about an error is read, and of that how many characters are shown.
const MAX_COMPLAINT: u64 = 64 << 10;
const MAX_SHOWN: usize = 200;

/// What goes with a request besides its address.
#[derive(Clone, Copy, Default)]
pub(super) struct Extra<'a> {
    pub(super) accept: Option<&'a str>,
    /// The first byte that is wanted.
    pub(super) from: Option<u64>,
    /// Goes to the host of the address, and to no other that it leads to.
    pub(super) authorization: Option<&'a HeaderValue>,
}

/// May be used by several threads, none of which is the runtime's.
pub(super) struct Http {
    runtime: Runtime,
    client: Client,
    /// Whether bytes may travel in the clear.
    plain: bool,
    /// For messages.
    registry: String,
    reference: String,
}

impl Http {
    /// `local`: the registry is on this machine, where no proxy leads.
    pub(super) fn new(reference: &Reference, trust: Trust, plain: bool, local: bool) -> Result<Self, Error> {
        let (registry, reference) = (reference.registry().to_owned(), reference.to_string());
        let failed = |source| Error::Registry { doing: "start the client for", reference: reference.clone(), source };
        // One thread of its own moves the bytes of all downloads; others only wait for them.
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
        let tls = trust.client_config().map_err(|e| failed(io::Error::other(e)))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("dewar/", env!("CARGO_PKG_VERSION")));
        if local {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| failed(io::Error::other(e)))?;
        Ok(Self { runtime, client, plain, registry, reference })
    }

    /// Follows redirections, of which none leads from https to plain http.
    pub(super) fn get(&self, doing: &'static str, url: &Url, extra: Extra<'_>) -> Result<Response, Error> {
        let mut at = url.clone();
        for _ in 0..MAX_REDIRECTS {
            self.check_scheme(&at)?;
            let mut request = self.client.request(Method::GET, at.clone());
            if let Some(accept) = extra.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(from) = extra.from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(authorization) = extra.authorization.filter(|_| at.origin() == url.origin()) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.send(doing, request)?;
            let to = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(to) = to else { return Ok(response) };
            let to = to.to_str().ok().and_then(|to| at.join(to).ok());
            at = to.ok_or_else(|| self.nonsense("it leads to an address that is none"))?;
        }
        Err(self.nonsense("it leads from address to address"))
    }

    /// Sends a form, which goes nowhere else.
    pub(super) fn post(&self, doing: &'static str, url: &Url, form: String) -> Result<Response, Error> {
        self.check_scheme(url)?;
        let request = self.client.request(Method::POST, url.clone());
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        self.send(doing, request)
    }

    fn send(&self, doing: &'static str, request: RequestBuilder) -> Result<Response, Error> {
        // Its clocks are the runtime's: it must be begun there.
        self.runtime.block_on(async { request.send().await }).map_err(|e| self.failed(doing, &e))
    }

    /// The next bytes of an answer; none at its end.
    pub(super) fn chunk(&self, response: &mut Response, chunk: &mut Vec<u8>) -> Result<(), reqwest::Error> {
        chunk.clear();
        if let Some(bytes) = self.runtime.block_on(response.chunk())? {
            chunk.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// The beginning of an answer, of at least `limit` bytes where it has so many.
    fn beginning(&self, response: &mut Response, limit: u64) -> Result<Vec<u8>, reqwest::Error> {
        let (mut body, mut chunk) = (Vec::new(), Vec::new());
        while body.len() as u64 <= limit {
            self.chunk(response, &mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            body.append(&mut chunk);
        }
        Ok(body)
    }

    /// A whole answer, which has at most so many bytes.
    pub(super) fn body(&self, doing: &'static str, mut response: Response, limit: u64) -> Result<Vec<u8>, Error> {
        let body = self.beginning(&mut response, limit).map_err(|e| self.failed(doing, &e))?;
        if body.len() as u64 > limit {
            return Err(self.nonsense(&format!("its answer is longer than {limit} bytes")));
        }
        Ok(body)
    }

    /// The error that an answer is which is none of those asked for.
    pub(super) fn refusal(&self, doing: &'static str, mut response: Response) -> Error {
        let (registry, reference, status) = (self.registry.clone(), self.reference.clone(), response.status());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { reference },
            StatusCode::TOO_MANY_REQUESTS => {
                let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
                let after = after.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds} seconds"));
                Error::TooOften { registry, after }
            }
            _ => {
                // What it says is only for the message: the answer is bad enough without.
                let body = self.beginning(&mut response, MAX_COMPLAINT).unwrap_or_default();
                Error::Answer { doing, reference, status: status.to_string(), complaint: complaint(&body) }
            }
        }
    }

    /// The error of a connection.
    pub(super) fn failed(&self, doing: &'static str, error: &reqwest::Error) -> Error {
        let mut cause: &(dyn std::error::Error + 'static) = error;
        // Only the innermost says what happened; those around it say through which layers it came.
        while let Some(next) = below(cause) {
            cause = next;
        }
        if let Some(problem) = trust::problem(cause) {
            return Error::Untrusted { registry: self.registry.clone(), problem };
        }
        let host = error.url().and_then(Url::host_str).unwrap_or(&self.registry);
        let source = io::Error::other(format!("{host}: {cause}"));
        Error::Registry { doing, reference: self.reference.clone(), source }
    }

    pub(super) fn nonsense(&self, problem: &str) -> Error {
        Error::Strange { registry: self.registry.clone(), problem: problem.to_owned() }
    }

    fn check_scheme(&self, url: &Url) -> Result<(), Error> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.plain => Ok(()),
            "http" => Err(self.nonsense("it leads from https to plain http, which --plain-http would allow")),
            _ => Err(self.nonsense("it leads to what is neither http nor https")),
        }
    }
}

/// What an error came from. An [`io::Error`] shows what it is made of, but not as its source.
fn below<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    let made_of = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    made_of.map(|inner| inner as _).or_else(|| error.source())
}

/// What a registry says about an error, fit to be shown: the messages in its JSON, or nothing.
fn complaint(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope {
        errors: Vec<Complaint>,
    }
    #[derive(serde::Deserialize)]
    struct Complaint {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else { return String::new() };
    let shown = envelope.errors.iter().map(|e| if e.message.is_empty() { &e.code } else { &e.message });
    let shown: Vec<&str> = shown.map(String::as_str).collect();
    let text: String = shown.join(", ").chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    if text.is_empty() { text } else { format!(" ({text})") }
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn what_a_registry_says_is_shown_within_bounds() {
        assert_eq!(complaint(br#"{"errors":[{"code":"A","message":"b\u001b[2Jc"},{"code":"D"}]}"#), " (b[2Jc, D)");
        assert_eq!(complaint(b"<html>"), "");
        assert_eq!(complaint(br#"{"errors":[]}"#), "");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(10_000));
        assert!(complaint(long.as_bytes()).len() < 300);
    }
}
