//! Who may connect, who may call what, and how often. A coordinator on loopback asks nobody who they are unless it is told to; any
//! other speaks TLS and wants a token or a certificate with a role for every call.

mod certificate;
mod door;
mod gate;
mod layer;
mod rates;
#[cfg(test)]
mod tests;
mod tls;

pub use door::{Connection, Peer};
pub use gate::{Caller, Pass};
pub use layer::GateLayer;
pub use tls::{Files, Tls};

use crate::store::Store;
use crate::token::Token;
use gate::Table;
use rates::Rates;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// How often tokens and certificates are looked at for changes: the longest that a revoked token is taken for.
const LOOK: Duration = Duration::from_secs(1);

/// What a coordinator takes at most; the operator's config file sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Calls of one client under way at once; workers' streams have a limit of their own.
    pub calls: u32,
    /// Calls of one client in a second; four times as many may come at once.
    pub calls_per_second: u32,
    /// The same for workers.
    pub worker_calls_per_second: u32,
    /// Bytes of a spec.
    pub spec_bytes: usize,
    /// Experiments in the store.
    pub experiments: usize,
    /// Submitted specs that are prepared at once, and exports that are made at once; others wait.
    pub preparing: usize,
    /// Connections of browsers at once.
    pub dashboard_connections: usize,
    /// Pages that follow the dashboard live at once.
    pub dashboard_streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            calls: 256,
            calls_per_second: 100,
            worker_calls_per_second: 2000,
            spec_bytes: 1 << 20,
            experiments: 10_000,
            preparing: 2,
            dashboard_connections: 256,
            dashboard_streams: 64,
        }
    }
}

/// How a coordinator is guarded.
#[derive(Debug)]
pub struct Security {
    tls: Option<Tls>,
    /// Whether every call must say whose it is.
    required: bool,
    limits: Limits,
    /// None until they have been read.
    tokens: watch::Sender<Option<Arc<Table>>>,
    rates: Mutex<Rates>,
    connections: Arc<Semaphore>,
    preparing: Arc<Semaphore>,
    exporting: Arc<Semaphore>,
}

impl Security {
    /// With TLS, where files for it are given. `required`: every call must say whose it is.
    #[must_use]
    pub fn new(tls: Option<Tls>, required: bool, limits: Limits) -> Arc<Self> {
        let few = || Arc::new(Semaphore::new(limits.preparing.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            tls,
            required,
            limits,
            tokens: watch::Sender::new(None),
            rates: Mutex::default(),
            connections: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            preparing: few(),
            exporting: few(),
        })
    }

    /// Whoever reaches the port may do everything.
    #[must_use]
    pub fn open() -> Arc<Self> {
        Self::new(None, false, Limits::default())
    }

    /// For the bearer of one token only.
    #[must_use]
    pub fn private(token: Token) -> Arc<Self> {
        let security = Self::new(None, true, Limits::default());
        security.know(vec![token]);
        security
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether every call must say whose it is.
    #[must_use]
    pub fn required(&self) -> bool {
        self.required
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Where those who prepare a spec queue up.
    #[must_use]
    pub fn preparing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.preparing)
    }

    /// Where those who want tables queue up.
    #[must_use]
    pub fn exporting(&self) -> Arc<Semaphore> {
        Arc::clone(&self.exporting)
    }

    /// Takes these tokens and no others.
    fn know(&self, tokens: Vec<Token>) {
        let table: BTreeMap<String, Token> = tokens.into_iter().map(|t| (t.id.clone(), t)).collect();
        self.tokens.send_if_modified(|old| {
            let changed = old.as_deref() != Some(&table);
            if changed {
                *old = Some(Arc::new(table));
            }
            changed
        });
    }

    /// Reads the tokens of `store` now and then, and certificates that changed. Never ends.
    pub async fn keep_fresh(self: Arc<Self>, store: Arc<dyn Store>) {
        let mut said = false;
        loop {
            let began = Instant::now();
            if self.required {
                match store.tokens().await {
                    Ok(tokens) => {
                        self.know(tokens);
                        said = false;
                    }
                    // Those that were read hold on; a store that stays away costs the lead anyway.
                    Err(e) if !said => {
                        tracing::warn!(error = %e, "the tokens can't be read; those known are used on");
                        said = true;
                    }
                    Err(_) => {}
                }
            }
            if let Some(tls) = &self.tls {
                tls.refresh();
            }
            tokio::time::sleep(LOOK.saturating_sub(began.elapsed()).max(LOOK / 4)).await;
        }
    }
}
