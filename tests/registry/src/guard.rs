//! What demands to know who asks ("Token Authentication" of the distribution project).

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::{Answer, Request};

/// Who has a password, and the header that shows it.
pub const USER: &str = "user";
pub const PASSWORD: &str = "secret";
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

const TOKEN: &str = "/token";

/// What is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The password, shown to the registry itself.
    Basic,
    /// A token, which anybody gets.
    Token,
    /// A token, which one gets for the password.
    TokenForPassword,
    /// A token, which one gets for this identity token.
    TokenForIdentity(&'static str),
}

/// A token server and whoever checks its tokens.
#[derive(Debug)]
pub struct Guard {
    demand: Demand,
    /// The one repository that may be pulled.
    repository: &'static str,
    service: &'static str,
    /// How many requests a token is good for.
    uses: usize,
    issued: AtomicUsize,
    used: AtomicUsize,
}

impl Guard {
    #[must_use]
    pub const fn new(demand: Demand, repository: &'static str) -> Self {
        let (issued, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { demand, repository, service: "test registry", uses: usize::MAX, issued, used }
    }

    /// Tokens expire after so many requests.
    #[must_use]
    pub const fn with_uses(mut self, uses: usize) -> Self {
        self.uses = uses;
        self
    }

    /// Lets through who shows what is demanded.
    pub fn answer(&self, request: &Request, behind: impl FnOnce(&Request) -> Answer) -> Answer {
        if request.path == TOKEN {
            return self.token(request);
        }
        let shown = request.header("authorization");
        let fits = match self.demand {
            Demand::Basic => shown == Some(BASIC),
            _ => {
                let current = format!("Bearer {}", self.current());
                shown == Some(&current) && self.used.fetch_add(1, Ordering::SeqCst) < self.uses
            }
        };
        if fits { behind(request) } else { self.challenge(request) }
    }

    fn challenge(&self, request: &Request) -> Answer {
        let challenge = if self.demand == Demand::Basic {
            "Basic realm=\"test\"".to_owned()
        } else {
            let scheme = if request.secure { "https" } else { "http" };
            // As docker.io has it, tokens come from another name than images.
            let host = request.header("host").unwrap_or_default().replace("registry-1.", "auth.");
            let (service, scope) = (self.service, self.scope());
            format!("Bearer realm=\"{scheme}://{host}{TOKEN}\",service=\"{service}\",scope=\"{scope}\"")
        };
        Answer::error(401, "UNAUTHORIZED", "who are you?").header("WWW-Authenticate", challenge)
    }

    fn token(&self, request: &Request) -> Answer {
        let parameter = |name, value: &str| request.parameter(name).as_deref() == Some(value);
        let shown = request.header("authorization");
        let known = match self.demand {
            Demand::Token => shown.is_none(),
            Demand::TokenForPassword => shown == Some(BASIC),
            Demand::TokenForIdentity(identity) => {
                let form = request.method == "POST" && parameter("grant_type", "refresh_token");
                form && parameter("refresh_token", identity) && request.parameter("client_id").is_some()
            }
            Demand::Basic => false,
        };
        if !known {
            return Answer::new(401, "who are you?");
        }
        if !parameter("service", self.service) || !parameter("scope", &self.scope()) {
            return Answer::new(400, "what do you want?");
        }
        self.issued.fetch_add(1, Ordering::SeqCst);
        self.used.store(0, Ordering::SeqCst);
        let name = if request.method == "POST" { "access_token" } else { "token" };
        Answer::new(200, json!({name: self.current(), "expires_in": 300}).to_string())
    }

    fn current(&self) -> String {
        format!("token-{}", self.issued.load(Ordering::SeqCst))
    }

    fn scope(&self) -> String {
        format!("repository:{}:pull", self.repository)
    }
}
