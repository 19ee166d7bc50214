//! `ablate serve`: the coordinator as a service.

use super::args::ServeArgs;
use super::experiment;
use super::fail::Fail;
use super::progress::Steps;
use super::run::{interrupted, version};
use super::say;
use super::stores;
use ablate_coordinator::server::{
    Error, Exporter, Fatal, Options, Service, SubmitError, Submitter, default_output, listen, stand_by,
};
use ablate_coordinator::store::Store;
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
struct Config {
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    store: Option<String>,
    output: Option<PathBuf>,
}

/// Reads the settings of a file. What is wrong with them is said without the line itself: it may hold a password.
fn read(path: &Path) -> Result<Config, Fail> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Fail::wrong(format!("--config {}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        Fail::wrong(e.message().to_owned())
            .at(format!("{}:{line}", path.display()))
            .help("the settings are listen, advertise, store and output")
    })
}

/// `ablate serve`.
pub async fn serve(args: ServeArgs) -> Result<u8, Fail> {
    let config = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
    if args.http.is_some() {
        return Err(Fail::wrong("--http: the dashboard is in the contract but isn't built yet")
            .help("leave --http away; follow with `ablate watch`"));
    }
    let wish = args.listen.or(config.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7650)));
    if !wish.ip().is_loopback() {
        return Err(Fail::wrong(format!(
            "--listen {wish}: an address that others can reach needs TLS, which isn't built yet"
        ))
        .help("listen on 127.0.0.1, and reach it through an SSH tunnel"));
    }
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
    let url = args.advertise.or(config.advertise).unwrap_or_else(|| format!("http://{address}"));
    super::coordinators::check(&url).map_err(|what| Fail::wrong(format!("--advertise {url}: {what}")))?;
    let store = place.open(&url).await?;
    let options = Options {
        listen: address,
        submitter: Some(submitter(root)),
        exporter: Some(exporter()),
        ..Options::default()
    };
    let ended = until(interrupted(), &listener, &store, &options, &at).await;
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
) -> Result<u8, Fail> {
    let mut end = std::pin::pin!(end);
    let several = store.lead_time().is_some();
    let mut led = false;
    loop {
        let lead = tokio::select! {
            () = &mut end => return Ok(0),
            lead = stand_by(listener, store.as_ref(), led) => lead.map_err(|e| Fail::from(e).at(at))?,
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
            "serving on http://{}; workers: ablate-worker --coordinator http://{0}",
            service.local_addr()
        ));
        let mut fatal = service.fatal();
        let why = tokio::select! {
            () = &mut end => None,
            why = fatal.wait_for(Option::is_some) => Some(why.ok().and_then(|w| w.clone())),
        };
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

fn submitter(root: PathBuf) -> Submitter {
    Arc::new(move |text: &str, origin: &str, base: &Path| {
        let wrong = |e: Fail| SubmitError { wrong_input: e.code == 2, message: e.to_string() };
        let made = experiment::parse(text.to_owned(), origin, base)
            .and_then(|spec| spec.prepare(&Steps::quiet()))
            .map_err(wrong)?;
        let output = default_output(&root, &made.prepared.plan.spec.name, &made.prepared.plan.identity());
        Ok(made.into_new(output))
    })
}

fn exporter() -> Exporter {
    Arc::new(|results, format, folder| {
        let mut results = results.clone();
        version(&mut results);
        let format = match format {
            "csv" => ablate_output::Format::Csv,
            "json" => ablate_output::Format::Json,
            _ => ablate_output::Format::Parquet,
        };
        std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        let analysis = ablate_output::analyse(&results);
        ablate_output::export_analysed(&results, &analysis, folder, format)
            .and_then(|_| ablate_output::report_analysed(&results, &analysis, &folder.join("report.html")))
            .map_err(|e| format!("{e:#}"))
    })
}
