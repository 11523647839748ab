//! What a registry demands before it answers, and how it is got.
//!
//! A registry that wants to know who asks says so with 401 and a challenge: either the password itself (Basic), or a token
//! (Bearer) that its token server gives to those with a password, an identity token, or nothing at all. The access asked
//! for is to pull one repository, whatever the challenge suggests.
//!
//! Protocols: "Token Authentication" and "OAuth2 Token Authentication" of the distribution project; RFC 7617, RFC 6750.

use std::sync::{Mutex, PoisonError};

use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::base64;
use super::credentials::Credentials;
use super::http::{Extra, Http};
use crate::images::Error;

/// The longest answer of a token server.
const MAX_TOKEN: u64 = 1 << 20;

const DOING: &str = "log in to the registry of";

/// Who we are to one registry. May be used by several threads.
pub(super) struct Login {
    credentials: Credentials,
    scope: String,
    /// What convinced the registry last.
    granted: Mutex<Option<HeaderValue>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Login {
    pub(super) fn new(credentials: Credentials, repository: &str) -> Self {
        Self { credentials, scope: format!("repository:{repository}:pull"), granted: Mutex::new(None) }
    }

    /// GET, after a login where one is demanded.
    pub(super) fn get(&self, http: &Http, doing: &'static str, url: &Url, extra: Extra<'_>) -> Result<Response, Error> {
        let used = self.granted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = http.get(doing, url, Extra { authorization: used.as_ref(), ..extra })?;
        // Another host that the registry led to has nothing to demand.
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != url.origin() {
            return Ok(response);
        }
        let granted = {
            let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
            // Else another thread was faster.
            if *granted == used {
                match self.answer(http, &response)? {
                    Some(answer) => *granted = Some(answer),
                    None => return Ok(response),
                }
            }
            granted.clone()
        };
        http.get(doing, url, Extra { authorization: granted.as_ref(), ..extra })
    }

    /// What to say to the challenge of an answer; `None` when there is nothing that could be said.
    fn answer(&self, http: &Http, refused: &Response) -> Result<Option<HeaderValue>, Error> {
        let texts = refused.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let challenges: Vec<Challenge> = texts.flat_map(challenges).collect();
        if let Credentials::Token(token) = &self.credentials {
            return authorization(http, &format!("Bearer {token}")).map(Some);
        }
        for challenge in &challenges {
            if let Challenge::Bearer { realm, service } = challenge {
                let realm = refused.url().join(realm).map_err(|_| http.nonsense("its token server has no address"))?;
                let token = self.token(http, realm, service.as_deref())?;
                return authorization(http, &format!("Bearer {token}")).map(Some);
            }
        }
        match (&self.credentials, challenges.contains(&Challenge::Basic)) {
            (Credentials::Password { user, password }, true) => authorization(http, &basic(user, password)).map(Some),
            _ => Ok(None),
        }
    }

    /// Gets a token from a token server.
    fn token(&self, http: &Http, mut realm: Url, service: Option<&str>) -> Result<String, Error> {
        let service = service.map(|service| ("service", service));
        let scope = ("scope", self.scope.as_str());
        let response = match &self.credentials {
            Credentials::Identity(token) => {
                let fixed = [("grant_type", "refresh_token"), ("client_id", "dewar"), ("refresh_token", token), scope];
                http.post(DOING, &realm, form(fixed.into_iter().chain(service)))?
            }
            credentials => {
                realm.query_pairs_mut().extend_pairs(service.into_iter().chain([scope]));
                let password = match credentials {
                    Credentials::Password { user, password } => Some(authorization(http, &basic(user, password))?),
                    _ => None,
                };
                http.get(DOING, &realm, Extra { authorization: password.as_ref(), ..Extra::default() })?
            }
        };
        if response.status() != StatusCode::OK {
            return Err(http.refusal(DOING, response));
        }
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let body = http.body(DOING, response, MAX_TOKEN)?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| http.nonsense("what its token server says is no token"))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() { Err(http.nonsense("its token server gives an empty token")) } else { Ok(token) }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
}

fn authorization(http: &Http, text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text).map_err(|_| http.nonsense("its token has bytes that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    // An address is there for its query alone.
    let url = Url::parse_with_params("form:x", pairs);
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

fn challenges(text: &str) -> Vec<Challenge> {
    let known = ChallengeParser::new(text).map_while(Result::ok).filter_map(|challenge| {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("Bearer") {
            Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service") })
        } else {
            challenge.scheme.eq_ignore_ascii_case("Basic").then_some(Challenge::Basic)
        }
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        let text = r#"Bearer realm="https://a/token",service="reg\"x",scope="repository:a:pull,push""#;
        assert_eq!(challenges(text), [bearer("https://a/token", Some("reg\"x"))]);
        assert_eq!(challenges(r#"Basic realm="x", bearer REALM="/t""#), [Challenge::Basic, bearer("/t", None)]);
        assert_eq!(challenges(r#"Bearer service="x""#), []);
        assert_eq!(challenges("Negotiate"), []);
        assert_eq!(challenges("\"=,,=\""), []);
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form([("a", "b&c=d"), ("e", "f g+/")].into_iter()), "a=b%26c%3Dd&e=f+g%2B%2F");
    }
}
