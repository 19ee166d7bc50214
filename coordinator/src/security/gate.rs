//! Whose a call is, and whether it may be made.

use super::door::Peer;
use super::rates::{Over, Rate};
use super::{Security, certificate::Certified};
use crate::token::{Role, Token, now};
use ablate_proto::v1::unidentified::Reason;
use ablate_proto::{not_permitted, over_limit, unidentified};
use http::HeaderMap;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// Tokens by id.
pub type Table = BTreeMap<String, Token>;

/// Streams of workers behind one address and identity: more than a coordinator takes workers.
const WORKER_CALLS: u32 = 16_384;
/// Longest that a token's or certificate's end is slept towards in one go.
const NAP: Duration = Duration::from_secs(3600);

/// Whose a call is.
#[derive(Clone, Debug)]
pub struct Caller {
    /// For logs: a token's name and id, a certificate's name.
    pub name: String,
    /// The token, where it is one's.
    token: Option<Token>,
    until: Option<i64>,
    tokens: watch::Receiver<Option<Arc<Table>>>,
}

impl Caller {
    /// Somebody who may go on for ever.
    #[must_use]
    pub fn anyone() -> Self {
        Self { name: String::new(), token: None, until: None, tokens: watch::Sender::new(None).subscribe() }
    }

    fn over(&self) -> Option<Reason> {
        if self.until.is_some_and(|u| now() >= u) {
            return Some(Reason::Expired);
        }
        let token = self.token.as_ref()?;
        let known = self.tokens.borrow().as_ref().is_none_or(|t| t.get(&token.id) == Some(token));
        (!known).then_some(Reason::Unknown)
    }

    /// Ends when the token is revoked or its time, or the certificate's, is over: with what to tell the caller.
    pub async fn ended(mut self) -> Status {
        loop {
            if let Some(reason) = self.over() {
                tracing::info!(caller = self.name, ?reason, "a caller's right has ended");
                return unidentified(reason);
            }
            let left = self.until.map_or(NAP, |u| Duration::from_secs((u - now()).max(1) as u64).min(NAP));
            tokio::select! {
                changed = self.tokens.changed() => if changed.is_err() {
                    // The gate is gone, and with it the service.
                    return std::future::pending().await;
                },
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// Counts a call as under way until it is dropped.
#[derive(Debug)]
pub struct Pass {
    security: Arc<Security>,
    client: String,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.security.rates.lock().unwrap_or_else(PoisonError::into_inner).done(&self.client);
    }
}

/// The roles of which a call needs one; none: any identity will do.
fn needed(path: &str) -> &'static [Role] {
    match path.strip_prefix('/').and_then(|p| p.split_once('/')) {
        Some(("ablate.v1.Cluster", _)) => &[Role::Worker],
        Some(("ablate.v1.Experiments", "Leader")) => &[],
        Some(("ablate.v1.Experiments", "List" | "Status" | "Watch" | "Workers" | "Live" | "Export")) => {
            &[Role::Submit, Role::Read]
        }
        // Whatever is added is for those who may do most, until it is listed.
        Some(("ablate.v1.Experiments", _)) => &[Role::Submit],
        _ => &[],
    }
}

struct Known {
    name: String,
    roles: Vec<Role>,
    token: Option<Token>,
    until: Option<i64>,
}

impl Known {
    fn of_token(token: &Token) -> Self {
        let name = format!("token {} ({})", token.id, token.name);
        Self { name, roles: vec![token.role], until: token.expires, token: Some(token.clone()) }
    }

    fn of_certificate(c: &Certified) -> Self {
        Self {
            name: format!("certificate {}", c.name),
            roles: c.roles.clone(),
            token: None,
            until: Some(c.until),
        }
    }
}

impl Security {
    /// Whose a call is: the token's where it carries one, else the certificate's.
    fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<Known, Status> {
        let Some(value) = headers.get(http::header::AUTHORIZATION) else {
            let c = peer.certified.as_ref().ok_or_else(|| unidentified(Reason::Missing))?;
            return if now() >= c.until {
                Err(unidentified(Reason::Expired))
            } else {
                Ok(Known::of_certificate(c))
            };
        };
        let tokens = self.tokens.borrow().clone();
        let tokens =
            tokens.ok_or_else(|| Status::unavailable("the coordinator has not read its tokens yet"))?;
        let word = value.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        let token = Token::id_of(word).and_then(|id| tokens.get(id)).filter(|t| t.fits(word));
        let token = token.ok_or_else(|| unidentified(Reason::Unknown))?;
        if token.expired(now()) {
            return Err(unidentified(Reason::Expired));
        }
        Ok(Known::of_token(token))
    }

    fn take(self: &Arc<Self>, client: String, worker: bool) -> Result<Pass, Status> {
        let Self { limits, .. } = **self;
        let rate = if worker {
            Rate { per_second: limits.worker_calls_per_second, at_once: WORKER_CALLS }
        } else {
            Rate { per_second: limits.calls_per_second, at_once: limits.calls }
        };
        let begun =
            self.rates.lock().unwrap_or_else(PoisonError::into_inner).begin(&client, rate, Instant::now());
        match begun {
            Ok(()) => Ok(Pass { security: Arc::clone(self), client }),
            Err(Over::Often(after)) => {
                Err(over_limit("calls a second from one client", u64::from(rate.per_second), Some(after)))
            }
            Err(Over::AtOnce) => Err(over_limit(
                "calls from one client at once",
                u64::from(rate.at_once),
                Some(Duration::from_secs(1)),
            )),
        }
    }

    /// Lets somebody look who needn't be known, if not too often.
    ///
    /// # Errors
    /// Where this address asks too much.
    pub fn visit(self: &Arc<Self>, peer: &Peer) -> Result<Pass, Status> {
        self.take(format!("v {}", peer.address.map_or_else(String::new, |a| a.ip().to_string())), false)
    }

    /// As a call of `Experiments.METHOD` is let in.
    ///
    /// # Errors
    /// Why it isn't.
    pub fn may(
        self: &Arc<Self>,
        peer: &Peer,
        headers: &HeaderMap,
        method: &str,
    ) -> Result<(Caller, Pass), Status> {
        self.admit(peer, &format!("/ablate.v1.Experiments/{method}"), headers)
    }

    /// Lets a call in, or says why not.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: &Peer,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(Caller, Pass), Status> {
        let place = peer.address.map_or_else(String::new, |a| a.ip().to_string());
        let needed = needed(path);
        let worker = needed.contains(&Role::Worker);
        let kind = if worker { 'w' } else { 'c' };
        let caller = |name: &str, token, until| Caller {
            name: name.to_owned(),
            token,
            until,
            tokens: self.tokens.subscribe(),
        };
        if !self.required {
            let pass = self.take(format!("{kind} {place}"), worker)?;
            return Ok((caller(&place, None, None), pass));
        }
        let refuse = |why: Status, who: &str| {
            // Those who guess are slowed down, and don't fill the log.
            match self.take(format!("? {place}"), false) {
                Ok(_) => {
                    tracing::warn!(caller = who, from = place, call = path, why = why.message(), "refused");
                    why
                }
                Err(over) => over,
            }
        };
        let known = self.identify(peer, headers).map_err(|why| refuse(why, "unknown"))?;
        if !needed.is_empty() && !needed.iter().any(|r| known.roles.contains(r)) {
            let names = |roles: &[Role]| roles.iter().map(|r| r.name()).collect::<Vec<_>>();
            return Err(refuse(not_permitted(&names(&known.roles), &names(needed)), &known.name));
        }
        let pass = self.take(format!("{kind} {place} {}", known.name), worker)?;
        Ok((caller(&known.name, known.token, known.until), pass))
    }
}
