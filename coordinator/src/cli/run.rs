//! `ablate run`: coordinator in this process, workers beside it, state in the output folder.

use super::args::RunArgs;
use super::differ;
use super::experiment;
use super::fail::Fail;
use super::progress::Steps;
use super::supervise;
use ablate_coordinator::server::{Options, Service, Status};
use ablate_coordinator::store::{NewExperiment, SqliteStore, State, Store};
use ablate_output::results::Results;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const STATE: &str = "state.db";

/// `ablate run`.
pub async fn run(args: RunArgs) -> Result<u8, Fail> {
    let began = Instant::now();
    let steps = Steps::new(args.json);
    let spec_path = args.spec.clone();
    let program = supervise::find_worker()?;
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    let (made, steps) = tokio::select! {
        made = tokio::task::spawn_blocking(move || experiment::read(&spec_path, &steps).map(|m| (m, steps))) => {
            made.map_err(|e| Fail::failed(e.to_string()))??
        }
        () = &mut interrupt => return Err(stopped(&args, &args.spec)),
    };
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&made.prepared.plan.spec.name));
    let new = made.into_new(out.clone());
    let _lock = claim(&out, &new, args.resume).await?;
    let prepared_in = began.elapsed().as_secs_f64();
    let sqlite = SqliteStore::open(&out.join(STATE)).await?;
    let store: Arc<dyn Store> = Arc::new(sqlite.clone());
    let service = Service::start(Options::default(), Arc::clone(&store)).await?;
    let (id, existed) = service.submit(new).await?;
    let mut statuses = service.subscribe();
    let mut fatal = service.fatal();
    let now = |all: &std::collections::BTreeMap<String, Status>| all.get(&id).cloned();
    let first = now(&statuses.borrow_and_update());
    if existed
        && let Some(s) = &first
        && s.accepted > 0
        && !args.json
    {
        eprintln!("resuming {}: {} of {} chunks are there", out.display(), s.accepted, s.planned);
    }
    let done = |s: &Option<Status>| s.as_ref().is_some_and(Status::ended);
    if !done(&first) {
        let workers = start_workers(&args, program, service.local_addr(), &out)?;
        let (tasks, mut failures) = workers;
        let swept = Instant::now();
        let ended: Result<(), Fail> = loop {
            tokio::select! {
                () = &mut interrupt => break Err(stopped(&args, &out)),
                Some(fail) = failures.recv() => break Err(fail),
                Ok(()) = fatal.changed() => {
                    if let Some(why) = fatal.borrow_and_update().clone() {
                        break Err(Fail::failed(why).help(resume_help(&args)));
                    }
                }
                changed = statuses.changed() => {
                    if changed.is_err() {
                        break Err(Fail::failed("the coordinator stopped").help(resume_help(&args)));
                    }
                    let status = now(&statuses.borrow_and_update());
                    if let Some(s) = &status {
                        steps.sweep(s);
                    }
                    if done(&status) {
                        break Ok(());
                    }
                }
            }
        };
        steps.clear();
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        service.shutdown();
        if let Err(fail) = ended {
            // What is in flight is computed again; what is committed is safe already.
            let _ = tokio::time::timeout(Duration::from_secs(2), sqlite.close()).await;
            return Err(fail);
        }
        record(&service, &id, swept.elapsed().as_secs_f64(), prepared_in).await?;
    }
    let status = now(&statuses.borrow()).ok_or_else(|| Fail::failed("the experiment is gone"))?;
    let mut results = store.results(&id).await?;
    version(&mut results);
    sqlite.close().await;
    let code = finish(results, &out, &steps, args.json).await?;
    if status.state == "failed" {
        return Err(Fail::failed(status.error));
    }
    Ok(if status.quarantined > 0 { 3 } else { code })
}

/// Versions for `run.json`.
pub fn version(results: &mut Results) {
    results.run.versions.insert("ablate".into(), env!("CARGO_PKG_VERSION").into());
    results.run.versions.insert("engine".into(), ablate_common::ENGINE_VERSION.to_string());
}

async fn record(
    service: &ablate_coordinator::server::Handle,
    id: &str,
    swept: f64,
    prepared: f64,
) -> Result<(), Fail> {
    let seconds = [("sweeps".to_owned(), swept), ("prepare".to_owned(), prepared)].into();
    service.add_seconds(id, &seconds).await?;
    Ok(())
}

fn start_workers(
    args: &RunArgs,
    program: PathBuf,
    coordinator: std::net::SocketAddr,
    out: &Path,
) -> Result<(Vec<tokio::task::JoinHandle<()>>, tokio::sync::mpsc::Receiver<Fail>), Fail> {
    let lanes = args.device.split(',').count() as u32;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let threads = args.threads.unwrap_or((cores / (args.workers * lanes)).max(1));
    let folder = out.to_path_buf();
    for slot in 0..args.workers {
        // A fresh log each run: the last words in it are this run's.
        File::create(folder.join(format!("worker-{slot}.log")))?;
    }
    let setup = supervise::Setup { program, coordinator, device: args.device.clone(), threads, folder };
    Ok(supervise::start(&setup, args.workers))
}

/// Takes the output folder, or says why it can't be this experiment's.
async fn claim(out: &Path, new: &NewExperiment, resume: bool) -> Result<File, Fail> {
    let state = out.join(STATE);
    let ours = state.exists();
    let foreign = !ours
        && std::fs::read_dir(out).is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.file_name() != "lock")));
    if resume && !ours {
        return Err(Fail::wrong(format!("{} holds nothing to resume", out.display()))
            .help("leave --resume away to start, or name the right folder with --out"));
    }
    if foreign {
        return Err(Fail::wrong(format!("{} holds files that aren't a run's", out.display()))
            .help("choose another folder with --out"));
    }
    std::fs::create_dir_all(out).map_err(|e| Fail::wrong(format!("{}: {e}", out.display())))?;
    let lock = File::create(out.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Fail::wrong(format!("another run is at work in {}", out.display()))
                .help("wait for it, or choose another folder with --out"));
        }
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    if ours {
        let store = SqliteStore::open(&state).await?;
        let stored = store.experiments().await?;
        store.close().await;
        if let Some(other) = stored.first()
            && other.id != new.plan.identity()
        {
            let named = differ::differences(&other.plan, &new.plan, 8).join("\n  ");
            return Err(Fail::wrong(format!(
                "{} holds a different experiment ({}); what differs:\n  {named}",
                out.display(),
                other.plan.spec.name
            ))
            .help("choose another folder with --out, or put the spec back as it was; nothing was changed"));
        }
        if stored.first().is_some_and(|s| matches!(s.state, State::Cancelled)) {
            return Err(Fail::wrong(format!("the experiment in {} was cancelled", out.display()))
                .help("choose another folder with --out"));
        }
    }
    Ok(lock)
}

/// Writes tables and report, prints what matters.
async fn finish(results: Results, out: &Path, steps: &Steps, json: bool) -> Result<u8, Fail> {
    steps.at("write tables and report", 0, 1);
    let folder = out.to_path_buf();
    let text = tokio::task::spawn_blocking(move || -> anyhow::Result<String> {
        ablate_output::export(&results, &folder, ablate_output::Format::Parquet)?;
        ablate_output::report(&results, &folder.join("report.html"))?;
        Ok(ablate_output::headline(&results))
    })
    .await
    .map_err(|e| Fail::failed(e.to_string()))?
    .map_err(|e| {
        Fail::failed(format!("tables can't be written: {e:#}"))
            .help("free some space or mend the folder; the same command writes them again")
    })?;
    steps.at("write tables and report", 1, 1);
    steps.clear();
    if json {
        let summary = std::fs::read_to_string(out.join("summary.json"))?;
        let value: serde_json::Value =
            serde_json::from_str(&summary).map_err(|e| Fail::failed(e.to_string()))?;
        println!("{}", serde_json::json!({"done": true, "folder": out, "summary": value}));
    } else {
        println!("{text}");
        println!("report: {}", out.join("report.html").display());
    }
    Ok(0)
}

fn resume_help(args: &RunArgs) -> String {
    let out = args.out.as_ref().map(|o| format!(" --out {}", o.display())).unwrap_or_default();
    format!("go on with `ablate run {}{out}`; nothing acknowledged is lost", args.spec.display())
}

fn stopped(args: &RunArgs, _out: &Path) -> Fail {
    let mut fail = Fail::failed("stopped before the end").help(resume_help(args));
    fail.code = 130;
    fail
}

/// Ends at the first SIGINT or SIGTERM.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}
