//! Pulls from a registry of our own, which answers whatever it likes: logins, certificates, and what no registry should do.
//! Nothing but the loopback device is needed.

mod client;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::{Client, layer};
use dewar_runtime::images::{Digest, Error, Reference, Silent};
use dewar_test_registry::{
    Answer, Authority, Certified, Content, Demand, Guard, PASSWORD, Request, Server, USER, digest,
};
use serde_json::json;

const LOCAL: &str = "127.0.0.1";

/// An image of one layer, `some/image:1`.
fn content() -> (Content, Vec<u8>) {
    let layer = layer("file", 300_000);
    let mut content = Content::default();
    content.image("some/image", "1", std::slice::from_ref(&layer));
    (content, layer)
}

fn reference(server: &Server) -> Reference {
    Reference::parse(&format!("{}/some/image:1", server.address())).unwrap()
}

/// A registry over plain http that is good but for what `wrong` answers to requests whose path has `part` in it.
fn wrong(part: &'static str, wrong: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> (Server, Vec<u8>) {
    let (content, layer) = content();
    let part = if part == "LAYER" { digest(&layer) } else { part.to_owned() };
    let handler = move |request: &Request| {
        let answer = content.answer(request);
        if request.path.contains(&part) { wrong(request, answer) } else { answer }
    };
    (Server::start(None, handler).unwrap(), layer)
}

fn guarded(demand: Demand, uses: usize) -> Server {
    let (content, _) = content();
    let guard = Guard::new(demand, "some/image").with_uses(uses);
    Server::start(None, move |request| guard.answer(request, |r| content.answer(r))).unwrap()
}

fn secured(server: &Certified, clients: Option<&Authority>) -> Server {
    let (content, _) = content();
    Server::start(Some(server.server(clients).unwrap()), move |request| content.answer(request)).unwrap()
}

impl Client {
    fn knows(self, server: &Server, entry: &serde_json::Value) -> Self {
        let config = json!({"auths": {server.address(): entry}});
        fs::write(self.dir.path().join("config.json"), config.to_string()).unwrap();
        self
    }

    fn trusts(self, registry: &str, file: &str, pem: &str) -> Self {
        let folder = self.dir.path().join("certs.d").join(registry);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), pem).unwrap();
        self
    }
}

#[test]
fn a_token_is_got_by_anybody() {
    let server = guarded(Demand::Token, usize::MAX);
    Client::new().pull(&reference(&server), &Silent).unwrap();
    let requests = server.requests();
    // One token does for all that follows.
    assert_eq!(requests.iter().filter(|r| r.path == "/token").count(), 1);
    assert!(requests[0].header("authorization").is_none());
    assert!(requests[2..].iter().all(|r| r.header("authorization") == Some("Bearer token-1")), "{requests:?}");
}

#[test]
fn a_token_is_got_for_a_password() {
    let server = guarded(Demand::TokenForPassword, usize::MAX);
    let reference = reference(&server);
    assert!(matches!(Client::new().refusal(&reference), Error::Denied { .. }));
    let wrong = Client::new().knows(&server, &json!({"username": USER, "password": "wrong"}));
    assert!(matches!(wrong.refusal(&reference), Error::Denied { .. }));
    let right = Client::new().knows(&server, &json!({"username": USER, "password": PASSWORD}));
    right.pull(&reference, &Silent).unwrap();
    // The password goes to the token server, never to the registry.
    let shown = |r: &Request| r.header("authorization").is_some_and(|a| a.starts_with("Basic"));
    assert!(server.requests().iter().all(|r| shown(r) == (r.path == "/token" && r.header("authorization").is_some())));
}

#[test]
fn a_token_is_got_for_an_identity_token() {
    let server = guarded(Demand::TokenForIdentity("i&=+ d"), usize::MAX);
    let reference = reference(&server);
    let client = Client::new().knows(&server, &json!({"auth": "dXNlcjo=", "identitytoken": "i&=+ d"}));
    client.pull(&reference, &Silent).unwrap();
    let other = Client::new().knows(&server, &json!({"identitytoken": "other"}));
    assert!(matches!(other.refusal(&reference), Error::Denied { .. }));
}

#[test]
fn a_password_is_shown_to_a_registry_that_asks_for_it() {
    let server = guarded(Demand::Basic, usize::MAX);
    let reference = reference(&server);
    assert!(matches!(Client::new().refusal(&reference), Error::Denied { .. }));
    let client = Client::new().knows(&server, &json!({"username": USER, "password": PASSWORD}));
    client.pull(&reference, &Silent).unwrap();
}

#[test]
fn a_token_that_expires_is_replaced() {
    let server = guarded(Demand::Token, 1);
    Client::new().pull(&reference(&server), &Silent).unwrap();
    assert_eq!(server.requests().iter().filter(|r| r.path == "/token").count(), 3, "manifest, configuration, layer");
}

#[test]
fn a_token_server_that_makes_no_sense_is_refused() {
    for (answer, expected) in [
        (Answer::new(200, r#"{"token":"a\nb"}"#), "bytes that no token has"),
        (Answer::new(200, r#"{"token":"","access_token":""}"#), "an empty token"),
        (Answer::new(200, "{"), "is no token"),
        (Answer::new(200, vec![b' '; 4096]).endless(), "is longer than"),
        (Answer::new(302, "").header("Location", "/token"), "from address to address"),
        (Answer::new(302, "").header("Location", "ftp://x"), "neither http nor https"),
        (Answer::new(302, "").header("Location", "http://"), "an address that is none"),
        (Answer::new(500, ""), "answers 500"),
        (Answer::new(429, "").header("Retry-After", "7"), "in 7 seconds"),
        (Answer::new(403, ""), "does not let us"),
    ] {
        let server = Server::start(None, move |request| match request.path.as_str() {
            "/token" => answer.clone(),
            // An address may be relative to where the challenge came from.
            _ => Answer::new(401, "").header("WWW-Authenticate", "Bearer realm=\"/token\""),
        });
        let error = Client::new().refusal(&reference(&server.unwrap())).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_password_does_not_go_into_the_clear() {
    let authority = Authority::new("ours").unwrap();
    let certified = authority.certify(&[LOCAL]).unwrap();
    let clear = Server::start(None, |_| Answer::new(200, r#"{"token":"t"}"#)).unwrap();
    let challenge = format!("Bearer realm=\"http://{}/token\"", clear.address());
    let answer = move |_: &Request| Answer::new(401, "").header("WWW-Authenticate", challenge.as_str());
    let server = Server::start(Some(certified.server(None).unwrap()), answer).unwrap();
    let client = Client::new().trusts(&server.address(), "ca.crt", &authority.certificate());
    let client = client.knows(&server, &json!({"username": USER, "password": PASSWORD}));
    let error = client.refusal(&reference(&server)).to_string();
    assert!(error.contains("from https to plain http"), "{error}");
    assert!(clear.requests().is_empty());
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_laid_down() {
    let authority = Authority::new("ours").unwrap();
    let server = secured(&authority.certify(&[LOCAL]).unwrap(), None);
    let (reference, address) = (reference(&server), server.address());
    let other = |name| Authority::new(name).unwrap().certificate();
    let namesake = Client::new().trusts(&address, "ca.crt", &other("ours")).refusal(&reference).to_string();
    assert!(namesake.contains("not the one that this host knows by that name"), "{namesake}");
    let client = Client::new().trusts(&address, "other.crt", &other("other"));
    let error = client.refusal(&reference);
    let text = error.to_string();
    assert!(matches!(error, Error::Untrusted { .. }) && text.contains("authority is unknown"), "{text}");
    assert!(text.contains(&format!("/etc/docker/certs.d/{address}/ca.crt")), "{text}");
    client.trusts(&address, "ca.crt", &authority.certificate()).pull(&reference, &Silent).unwrap();
    assert!(server.requests().iter().all(|r| r.secure));

    // Nothing that is laid down for another registry counts, nor does another ending.
    let client = Client::new().trusts("127.0.0.1:1", "ca.crt", &authority.certificate());
    let client = client.trusts(&address, "ca.pem", &authority.certificate());
    client.refusal(&reference);
    let client = Client::new().trusts(&address, "ca.crt", "no certificate");
    assert!(matches!(client.refusal(&reference), Error::Certificate { .. }));
}

#[test]
fn a_certificate_that_is_laid_down_itself_is_trusted() {
    let certified = Certified::by_itself(&[LOCAL]).unwrap();
    let server = secured(&certified, None);
    let client = Client::new().trusts(&server.address(), "domain.crt", &certified.certificate);
    client.pull(&reference(&server), &Silent).unwrap();

    let other = Certified::by_itself(&["other.example"]).unwrap();
    let server = secured(&other, None);
    let client = Client::new().trusts(&server.address(), "domain.crt", &other.certificate);
    assert!(client.refusal(&reference(&server)).to_string().contains("it is for another name"));
}

#[test]
fn a_certificate_must_be_right() {
    let authority = Authority::new("ours").unwrap();
    for (certified, expected) in [
        (authority.certify(&["other.example"]).unwrap(), "it is for another name"),
        (authority.certify_expired(&[LOCAL]).unwrap(), "it has expired"),
    ] {
        let server = secured(&certified, None);
        let client = Client::new().trusts(&server.address(), "ca.crt", &authority.certificate());
        // That the server's own is laid down too does not make it better.
        let client = client.trusts(&server.address(), "own.crt", &certified.certificate);
        let error = client.refusal(&reference(&server)).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_registry_may_ask_for_a_certificate() {
    let (authority, ours) = (Authority::new("ours").unwrap(), Authority::new("clients").unwrap());
    let server = secured(&authority.certify(&[LOCAL]).unwrap(), Some(&ours));
    let address = server.address();
    let client = Client::new().trusts(&address, "ca.crt", &authority.certificate());
    let error = client.refusal(&reference(&server));
    assert!(matches!(error, Error::Registry { .. }), "{error:?}");
    let own = ours.certify(&["client"]).unwrap();
    let client = client.trusts(&address, "client.cert", &own.certificate);
    client.refusal(&reference(&server));
    let client = client.trusts(&address, "client.key", &own.key);
    client.pull(&reference(&server), &Silent).unwrap();
}

#[test]
fn answers_that_are_errors_are_told_apart() {
    type Fits = fn(&Error) -> bool;
    let cases: [(u16, &str, Fits); 7] = [
        (401, "does not let us", |e| matches!(e, Error::Denied { .. })),
        (403, "does not let us", |e| matches!(e, Error::Denied { .. })),
        (404, "does not have", |e| matches!(e, Error::NotInRegistry { .. })),
        (429, "try again later", |e| matches!(e, Error::TooOften { .. })),
        (500, "answers 500 Internal Server Error (so it is)", |e| matches!(e, Error::Answer { .. })),
        (503, "answers 503 Service Unavailable (so it is)", |e| matches!(e, Error::Answer { .. })),
        (204, "answers 204 No Content", |e| matches!(e, Error::Answer { .. })),
    ];
    for (status, expected, fits) in cases {
        let (server, _) = wrong("manifests", move |_, _| Answer::error(status, "X", "so it is"));
        let error = Client::new().refusal(&reference(&server));
        assert!(fits(&error) && error.to_string().contains(expected), "{error:?}");
    }
    for status in [401, 403, 404, 429, 500] {
        let (server, _) = wrong("LAYER", move |_, _| Answer::error(status, "X", "so it is"));
        let error = Client::new().refusal(&reference(&server));
        let fits = match status {
            401 | 403 => matches!(error, Error::Denied { .. }),
            429 => matches!(error, Error::TooOften { .. }),
            _ => matches!(error, Error::Answer { .. }),
        };
        assert!(fits, "{error:?}");
    }
}

#[test]
fn a_download_that_breaks_off_is_taken_up_again() {
    let tries = AtomicUsize::new(0);
    let (server, layer) = wrong("LAYER", move |_, answer| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => answer.cut_after(100_000),
        1 => answer.cut_after(50_000),
        _ => answer,
    });
    let pulled = Client::new().pull(&reference(&server), &Silent).unwrap();
    assert_eq!(pulled.image.layers[0].diff_id, Digest::of(&layer));
    let ranges: Vec<_> = server.requests().iter().filter_map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=150000-"]);
}

#[test]
fn a_download_that_breaks_off_again_and_again_ends() {
    let (server, _) = wrong("LAYER", |_, answer| {
        let half = answer.body().len() / 2;
        answer.cut_after(half)
    });
    let error = Client::new().refusal(&reference(&server));
    assert!(matches!(&error, Error::Registry { doing: "download", .. }), "{error:?}");

    for part in ["manifests", "/blobs/"] {
        let (server, _) = wrong(part, |_, answer| answer.cut_after(10));
        let error = Client::new().refusal(&reference(&server));
        assert!(matches!(&error, Error::Registry { .. }), "{error:?}");
    }

    // A registry that starts over does not send the rest.
    let (server, _) = wrong("LAYER", |request, answer| {
        if request.header("range").is_none() { answer.cut_after(1000) } else { Answer::new(200, "all") }
    });
    let error = Client::new().refusal(&reference(&server)).to_string();
    assert!(error.contains("does not send the rest"), "{error}");
}

#[test]
fn bytes_that_are_not_those_of_the_digest_are_refused() {
    let changed = |answer: &Answer| {
        let mut body = answer.body().to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        body
    };
    for part in ["LAYER", "/blobs/"] {
        let (server, _) = wrong(part, move |_, answer| {
            let body = changed(&answer);
            answer.with_body(body)
        });
        let error = Client::new().refusal(&reference(&server));
        assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
    }
    let (server, _) = wrong("manifests", |_, answer| answer);
    let other = reference(&server).with_digest(Digest::of(b"other"));
    assert!(matches!(Client::new().refusal(&other), Error::NotInRegistry { .. }));
    let (server, _) = wrong("manifests", |_, _| Answer::new(200, "{}"));
    let other = reference(&server).with_digest(Digest::of(b"other"));
    assert!(matches!(Client::new().refusal(&other), Error::WrongDigest { .. }));
}

#[test]
fn sizes_that_are_not_those_of_the_manifest_are_refused() {
    for (part, length) in [("LAYER", true), ("LAYER", false), ("/blobs/", true), ("/blobs/", false)] {
        for add in [true, false] {
            let (server, _) = wrong(part, move |_, answer| {
                let mut body = answer.body().to_vec();
                if add {
                    body.push(0)
                } else {
                    body.truncate(body.len() - 1)
                }
                let answer = Answer::new(200, body);
                if length { answer } else { answer.without_length() }
            });
            let error = Client::new().refusal(&reference(&server));
            assert!(matches!(error, Error::WrongSize { .. }), "{part} {length} {add}: {error:?}");
        }
    }
}

#[test]
fn answers_without_end_are_ended() {
    for part in ["manifests", "LAYER", "/blobs/"] {
        let (server, _) = wrong(part, |_, answer| answer.endless());
        let error = Client::new().refusal(&reference(&server));
        assert!(matches!(error, Error::WrongSize { .. } | Error::Strange { .. }), "{part}: {error:?}");
    }
    let (server, _) = wrong("manifests", |_, _| Answer::new(500, "so").endless());
    assert!(matches!(Client::new().refusal(&reference(&server)), Error::Answer { .. }));
}

#[test]
fn a_password_does_not_follow_to_another_host() {
    let (content, _) = content();
    let elsewhere = {
        let content = content.clone();
        Arc::new(Server::start(None, move |request| content.answer(request)).unwrap())
    };
    let guard = Guard::new(Demand::Token, "some/image");
    let away = elsewhere.address();
    let server = Server::start(None, move |request| {
        guard.answer(request, |request| {
            if request.path.contains("/blobs/") {
                Answer::new(307, "").header("Location", format!("http://{away}{}", request.path))
            } else {
                content.answer(request)
            }
        })
    });
    let server = server.unwrap();
    Client::new().pull(&reference(&server), &Silent).unwrap();
    let followed = elsewhere.requests();
    assert_eq!(followed.len(), 2);
    assert!(followed.iter().all(|r| r.header("authorization").is_none()), "{followed:?}");
    let there = server.requests();
    let shown = there.iter().filter(|r| r.path.contains("/blobs/") && r.header("authorization").is_some());
    assert_eq!(shown.count(), 2);

    // What another host demands is not what the registry demands.
    let hostile =
        Server::start(None, |_| Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")).unwrap();
    let away = hostile.address();
    let (server, _) = wrong("LAYER", move |_, _| Answer::new(302, "").header("Location", format!("http://{away}/")));
    let client = Client::new().knows(&server, &json!({"username": USER, "password": PASSWORD}));
    assert!(matches!(client.refusal(&reference(&server)), Error::Denied { .. }));
    assert_eq!(hostile.requests().len(), 1);
    assert!(hostile.requests()[0].header("authorization").is_none());
}
