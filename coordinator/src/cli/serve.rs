//! `ablate serve`: the coordinator as a service.

use super::args::{ServeArgs, lease, millionths};
use super::experiment;
use super::fail::Fail;
use super::progress::Steps;
use super::run::{interrupted, version};
use super::say;
use super::stores;
use super::web;
use ablate_coordinator::scheduler::Config as Scheduling;
use ablate_coordinator::security::{Files, Limits, Security, Tls};
use ablate_coordinator::server::{
    Error, Exporter, Fatal, Options, Service, SubmitError, Submitter, default_output, listen, stand_by,
};
use ablate_coordinator::store::Store;
use ablate_prepare::Folders;
use serde::Deserialize;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the parts of a service get to end.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    listen: Option<SocketAddr>,
    http: Option<SocketAddr>,
    advertise: Option<String>,
    pub store: Option<String>,
    output: Option<PathBuf>,
    audit: Option<f64>,
    lease: Option<f64>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    #[serde(default)]
    require_auth: bool,
    #[serde(default)]
    allow: Vec<PathBuf>,
    #[serde(default)]
    limits: Limits,
}

/// Reads the settings of a file. What is wrong with them is said without the line itself: it may hold a password.
pub fn read(path: &Path) -> Result<Config, Fail> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Fail::wrong(format!("--config {}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        Fail::wrong(e.message().to_owned())
            .at(format!("{}:{line}", path.display()))
            .help(
                "the settings are listen, http, advertise, store, output, audit, lease, tls_cert, tls_key, client_ca, require_auth, allow and [limits]",
            )
    })
}

/// `ablate serve`.
pub async fn serve(args: ServeArgs) -> Result<u8, Fail> {
    let mut config = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let wish = args.listen.or(config.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7650)));
    let security = security(&args, &mut config, wish)?;
    let folders = folders(&args, &config, security.required())?;
    let place = stores::Place::read(
        &args.store.or(config.store).unwrap_or_else(|| "sqlite://ablate.db".to_owned()),
        "--store",
    )?;
    let root = args.output.or(config.output).unwrap_or_else(|| PathBuf::from("runs"));
    std::fs::create_dir_all(&root).map_err(|e| {
        Fail::wrong(format!("--output {}: {e}", root.display())).help("name a folder that can be written")
    })?;
    let at = format!("--store {place}, --listen {wish}");
    let listener = listen(wish).map_err(|e| Fail::from(e).at(at.clone()))?;
    let address = listener.local_addr()?;
    let url = args.advertise.or(config.advertise).unwrap_or_else(|| own_url(address, security.encrypted()));
    super::coordinators::check(&url).map_err(|what| Fail::wrong(format!("--advertise {url}: {what}")))?;
    let web = args.http.or(config.http).map(|http| {
        let files = args
            .tls_cert
            .as_ref()
            .or(config.tls_cert.as_ref())
            .zip(args.tls_key.as_ref().or(config.tls_key.as_ref()));
        web::open(http, files, security.required(), config.limits)
    });
    let web = web.transpose()?;
    let store = place.open(&url).await?;
    let audit = args.audit.or(config.audit).unwrap_or(0.0);
    if !(0.0..=1.0).contains(&audit) {
        return Err(Fail::wrong(format!("audit = {audit}: a share is a number from 0 to 1")));
    }
    let mut scheduler = Scheduling { audit: millionths(audit), ..Scheduling::default() };
    if let Some(seconds) = args.lease.or(config.lease) {
        let seconds =
            lease(&seconds.to_string()).map_err(|e| Fail::wrong(format!("lease = {seconds}: {e}")))?;
        scheduler.lease = (seconds * 1000.0).round() as u64;
    }
    let options = Options {
        listen: address,
        scheduler,
        submitter: Some(submitter(root, folders)),
        exporter: Some(exporter()),
        security: Arc::clone(&security),
        ..Options::default()
    };
    if security.required() && config.client_ca.is_none() && store.tokens().await?.is_empty() {
        say::err(format_args!(
            "note: there is no token yet, so nobody can call; make one with `ablate token create --role worker|submit|read`"
        ));
    }
    let fresh = tokio::spawn(security.keep_fresh(Arc::clone(&store)));
    let dashboard = web.map(|web| web.serve(&store)).transpose()?;
    let ended = until(interrupted(), &listener, &store, &options, &at, dashboard.as_ref()).await;
    fresh.abort();
    // Closing folds SQLite's log into the database file; without it the next start does that.
    let _ = tokio::time::timeout(GRACE, store.closed()).await;
    ended
}

/// Leads and stands by in turns, until `end` or a failure.
async fn until(
    end: impl Future<Output = ()>,
    listener: &std::net::TcpListener,
    store: &Arc<dyn Store>,
    options: &Options,
    at: &str,
    dashboard: Option<&web::Served>,
) -> Result<u8, Fail> {
    let mut end = std::pin::pin!(end);
    let several = store.lead_time().is_some();
    let scheme = if options.security.encrypted() { "https" } else { "http" };
    let mut led = false;
    let stands_by = |leader: &str| {
        if let Some(d) = dashboard {
            d.stand_by(leader);
        }
    };
    loop {
        let lead = tokio::select! {
            () = &mut end => return Ok(0),
            lead = stand_by(listener, &options.security, store.as_ref(), led, stands_by) => lead.map_err(|e| Fail::from(e).at(at))?,
        };
        led = true;
        let service =
            match Service::lead(options.clone(), listener.try_clone()?, Arc::clone(store), lead).await {
                Ok(service) => service,
                Err(Error::Store(e)) if several && e.loses_lead() => {
                    say::err(format_args!("note: lost the lead: {e}"));
                    continue;
                }
                Err(e) => return Err(Fail::from(e).at(at)),
            };
        say::err(format_args!(
            "serving on {scheme}://{}; workers: ablate-worker --coordinator {scheme}://{0}",
            service.local_addr()
        ));
        if let Some(dashboard) = dashboard {
            dashboard.lead(&service);
        }
        let mut fatal = service.fatal();
        let why = tokio::select! {
            () = &mut end => None,
            why = fatal.wait_for(Option::is_some) => Some(why.ok().and_then(|w| w.clone())),
        };
        stands_by("");
        service.shutdown();
        // What still writes is refused by its epoch once another leads.
        let _ = tokio::time::timeout(GRACE, service.closed()).await;
        match why {
            Some(Some(Fatal::LostLead(why))) if several => {
                say::err(format_args!("note: lost the lead: {why}; standing by"));
                continue;
            }
            _ => {}
        }
        let _ = tokio::time::timeout(GRACE, service.resign()).await;
        return match why {
            None => Ok(0),
            Some(why) => Err(Fail::failed(why.as_ref().map_or("the service ended", Fatal::what)).at(at)),
        };
    }
}

/// What guards the service: nothing on loopback unless it is asked for, TLS and identities elsewhere.
fn security(args: &ServeArgs, config: &mut Config, wish: SocketAddr) -> Result<Arc<Security>, Fail> {
    let mut option = |given: &Option<PathBuf>, set: fn(&mut Config) -> &mut Option<PathBuf>| {
        let set = set(config);
        if given.is_some() {
            set.clone_from(given);
        }
        set.clone()
    };
    let cert = option(&args.tls_cert, |c| &mut c.tls_cert);
    let key = option(&args.tls_key, |c| &mut c.tls_key);
    let client_ca = option(&args.client_ca, |c| &mut c.client_ca);
    let beyond = !wish.ip().to_canonical().is_loopback();
    let required = beyond || args.require_auth || config.require_auth || client_ca.is_some();
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => {
            Some(Tls::open(Files { cert, key, client_ca, web: false }).map_err(|e| {
                Fail::wrong(e).help(
                    "name PEM files that this user can read: a certificate, and the key that belongs to it",
                )
            })?)
        }
        (None, None) if client_ca.is_some() => {
            return Err(Fail::wrong("--client-ca: clients can show certificates over TLS only")
                .help("give --tls-cert and --tls-key too"));
        }
        (None, None) if beyond => {
            return Err(Fail::wrong(format!(
                "--listen {wish}: other machines reach this address, and without TLS everybody on the way could read and change what is said"
            ))
            .help("give --tls-cert and --tls-key, or listen on 127.0.0.1 and reach it through an SSH tunnel"));
        }
        (None, None) => None,
        _ => return Err(Fail::wrong("--tls-cert and --tls-key belong together").help("give both")),
    };
    Ok(Security::new(tls, required, config.limits))
}

/// Where the files of submitted specs may lie.
fn folders(args: &ServeArgs, config: &Config, required: bool) -> Result<Folders, Fail> {
    let allow = if args.allow.is_empty() { &config.allow } else { &args.allow };
    if allow.is_empty() && !required {
        return Ok(Folders::any());
    }
    Folders::only(allow).map_err(|(folder, e)| {
        Fail::wrong(format!("--allow {}: {e}", folder.display())).help("name a folder that is there")
    })
}

/// What a coordinator calls itself, unless it is told.
fn own_url(address: SocketAddr, encrypted: bool) -> String {
    let scheme = if encrypted { "https" } else { "http" };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        // Nobody reaches 0.0.0.0.
        host if address.ip().is_unspecified() && !host.is_empty() => {
            format!("{scheme}://{host}:{}", address.port())
        }
        _ => format!("{scheme}://{address}"),
    }
}

fn submitter(root: PathBuf, folders: Folders) -> Submitter {
    Arc::new(move |text: &str, origin: &str, base: &Path| {
        let wrong = |e: Fail| SubmitError { wrong_input: e.code == 2, message: e.to_string() };
        let made = experiment::parse(text.to_owned(), origin, base)
            .and_then(|spec| spec.prepare_within(&folders, &Steps::quiet()))
            .map_err(wrong)?;
        let output = default_output(&root, &made.prepared.plan.spec.name, &made.prepared.plan.identity());
        Ok(made.into_new(output))
    })
}

fn exporter() -> Exporter {
    Arc::new(|mut results, format, folder| {
        version(&mut results);
        let format = match format {
            "csv" => ablate_output::Format::Csv,
            "json" => ablate_output::Format::Json,
            _ => ablate_output::Format::Parquet,
        };
        std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        let analysis = ablate_output::analyse(&results);
        ablate_output::export_analysed(&results, &analysis, folder, format)
            .and_then(|_| ablate_output::present(&results, &analysis, folder))
            .map(drop)
            .map_err(|e| format!("{e:#}"))
    })
}
