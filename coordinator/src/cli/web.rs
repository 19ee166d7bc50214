//! Where the dashboard is served, and who may act there.

use super::fail::Fail;
use super::say;
use ablate_coordinator::dashboard::Dashboard;
use ablate_coordinator::security::{Files, Limits, Security, Tls};
use ablate_coordinator::server::{Error, Handle, listen};
use ablate_coordinator::store::Store;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// An address that is listened on, before anything is answered.
pub struct Web {
    listener: TcpListener,
    security: Arc<Security>,
}

/// A dashboard that is served until this is dropped.
pub struct Served {
    dashboard: Dashboard,
    fresh: Option<AbortHandle>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(fresh) = &self.fresh {
            fresh.abort();
        }
    }
}

impl std::ops::Deref for Served {
    type Target = Dashboard;

    fn deref(&self) -> &Dashboard {
        &self.dashboard
    }
}

/// Listens on `http`: on loopback in clear text, elsewhere with the certificate and key in `files`. `required`: who acts must show a token on
/// loopback too.
pub fn open(
    http: SocketAddr,
    files: Option<(&PathBuf, &PathBuf)>,
    required: bool,
    limits: Limits,
) -> Result<Web, Fail> {
    let beyond = !http.ip().to_canonical().is_loopback();
    let tls = match files {
        _ if !beyond => None,
        None => {
            return Err(Fail::wrong(format!(
                "--http {http}: other machines reach this address, and without TLS everybody on the way could read tokens and change what is shown"
            ))
            .help("give --tls-cert and --tls-key, or serve it on 127.0.0.1 and reach it through an SSH tunnel"));
        }
        Some((cert, key)) => {
            let files = Files { cert: cert.clone(), key: key.clone(), client_ca: None, web: true };
            Some(Tls::open(files).map_err(|e| {
                Fail::wrong(e).help(
                    "name PEM files that this user can read: a certificate, and the key that belongs to it",
                )
            })?)
        }
    };
    let security = Security::new(tls, required || beyond, for_browsers(limits));
    Ok(Web { listener: bind(http)?, security })
}

/// Listens on loopback, for one who has `token`.
pub fn private(http: SocketAddr, token: ablate_coordinator::token::Token) -> Result<Web, Fail> {
    if !http.ip().to_canonical().is_loopback() {
        return Err(Fail::wrong(format!("--http {http}: a run's dashboard is for this machine only")).help(
            "serve it on 127.0.0.1 and reach it through an SSH tunnel, or use `ablate serve` with TLS",
        ));
    }
    Ok(Web { listener: bind(http)?, security: Security::private(token) })
}

fn bind(http: SocketAddr) -> Result<TcpListener, Fail> {
    listen(http).map_err(|e| {
        let what = match e {
            Error::AddressInUse(_) => "it is in use by another program".to_owned(),
            e => e.to_string(),
        };
        Fail::wrong(format!("--http {http}: {what}")).help("choose another address; port 0 picks a free one")
    })
}

/// Browsers have limits of their own, so that they take nothing from workers.
fn for_browsers(limits: Limits) -> Limits {
    Limits { connections: limits.dashboard_connections, ..limits }
}

impl Web {
    /// Begins to answer. Tokens are those of `store`.
    pub fn serve(self, store: &Arc<dyn Store>) -> Result<Served, Fail> {
        let scheme = if self.security.encrypted() { "https" } else { "http" };
        let fresh = tokio::spawn(Arc::clone(&self.security).keep_fresh(Arc::clone(store))).abort_handle();
        let dashboard = Dashboard::start(self.listener, self.security)?;
        say::err(format_args!("dashboard on {scheme}://{}", dashboard.local_addr()));
        Ok(Served { dashboard, fresh: Some(fresh) })
    }

    /// Begins to answer for a run, whose only token is known already.
    pub fn serve_run(self, handle: &Handle) -> Result<Served, Fail> {
        let dashboard = Dashboard::start(self.listener, self.security)?;
        dashboard.lead(handle);
        Ok(Served { dashboard, fresh: None })
    }
}
