//! `ablate serve`: the coordinator as a service.

use super::args::ServeArgs;
use super::experiment;
use super::fail::Fail;
use super::progress::Steps;
use super::run::{interrupted, version};
use super::say;
use ablate_coordinator::server::{Options, Service, SubmitError, default_output};
use ablate_coordinator::store::SqliteStore;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    listen: Option<SocketAddr>,
    store: Option<String>,
    output: Option<PathBuf>,
}

/// `ablate serve`.
pub async fn serve(args: ServeArgs) -> Result<u8, Fail> {
    let config: Config = match &args.config {
        None => Config::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| Fail::wrong(format!("{}: {e}", path.display())))?;
            toml::from_str(&text).map_err(|e| Fail::wrong(format!("{}: {e}", path.display())))?
        }
    };
    if args.http.is_some() {
        return Err(Fail::wrong("--http: the dashboard is in the contract but isn't built yet")
            .help("leave --http away; follow with `ablate watch`"));
    }
    let listen = args.listen.or(config.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7650)));
    if !listen.ip().is_loopback() {
        return Err(Fail::wrong(format!(
            "--listen {listen}: an address that others can reach needs TLS, which isn't built yet"
        ))
        .help("listen on 127.0.0.1, and reach it through an SSH tunnel"));
    }
    let url = args.store.or(config.store).unwrap_or_else(|| "sqlite://ablate.db".to_owned());
    let Some(path) = url.strip_prefix("sqlite://") else {
        return Err(Fail::wrong(if url.starts_with("postgres") {
            format!("--store {url}: PostgreSQL is in the contract but isn't built yet")
        } else {
            format!("--store {url}: not a store")
        })
        .help("use sqlite://PATH"));
    };
    let root = args.output.or(config.output).unwrap_or_else(|| PathBuf::from("runs"));
    std::fs::create_dir_all(&root).map_err(|e| {
        Fail::wrong(format!("--output {}: {e}", root.display())).help("name a folder that can be written")
    })?;
    let store = SqliteStore::open(Path::new(path)).await.map_err(|e| {
        Fail::wrong(format!("--store {url}: {e}"))
            .help("name a file in a folder that is there, and that no other coordinator uses")
    })?;
    let options = Options {
        listen,
        submitter: Some(Arc::new(move |text: &str, origin: &str, base: &Path| {
            let wrong = |e: Fail| SubmitError { wrong_input: e.code == 2, message: e.to_string() };
            let made = experiment::parse(text.to_owned(), origin, base)
                .and_then(|spec| spec.prepare(&Steps::quiet()))
                .map_err(wrong)?;
            let output = default_output(&root, &made.prepared.plan.spec.name, &made.prepared.plan.identity());
            Ok(made.into_new(output))
        })),
        exporter: Some(Arc::new(|results, format, folder| {
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
                .and_then(|_| {
                    ablate_output::report_analysed(&results, &analysis, &folder.join("report.html"))
                })
                .map_err(|e| format!("{e:#}"))
        })),
        ..Options::default()
    };
    let service = Service::start(options, Arc::new(store.clone()))
        .await
        .map_err(|e| Fail::from(e).at(format!("--store {url}, --listen {listen}")))?;
    say::err(format_args!(
        "serving on http://{}; workers: ablate-worker --coordinator http://{0}",
        service.local_addr()
    ));
    let mut fatal = service.fatal();
    let ended = tokio::select! {
        () = interrupted() => Ok(0),
        why = fatal.wait_for(Option::is_some) => Err(Fail::failed(why.ok().and_then(|w| w.clone()).unwrap_or_default())),
    };
    service.shutdown();
    // Closing folds the log into the database file; without it the next start does that.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), store.close()).await;
    ended
}
