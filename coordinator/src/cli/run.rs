//! `ablate run`: coordinator in this process, workers beside it, state in the output folder.

use super::args::{RunArgs, millionths};
use super::experiment::{self, Made};
use super::fail::{Fail, on};
use super::folder;
use super::outcome::Outcome;
use super::progress::{Steps, SweepClock};
use super::say;
use super::supervise::{self, Workers};
use super::web;
use ablate_coordinator::scheduler::Config as Scheduling;
use ablate_coordinator::security::Security;
use ablate_coordinator::server::{Control, Handle, Options, Service, Status};
use ablate_coordinator::store::{SqliteStore, Store};
use ablate_coordinator::token::{Role, Token};
use ablate_net::Secret;
use ablate_output::results::Results;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `ablate run`.
pub async fn run(args: RunArgs) -> Result<u8, Fail> {
    let session = Session { steps: Arc::new(Steps::new(args.json)), args, held: Mutex::default() };
    let done = tokio::select! {
        biased;
        () = interrupted() => Err(Fail::interrupted("stopped before the end").help(session.resume())),
        done = session.work() => done,
    };
    session.steps.clear();
    session.close().await;
    done
}

/// What must be put away however the run ends.
#[derive(Default)]
struct Held {
    lock: Option<File>,
    store: Option<SqliteStore>,
    service: Option<(Handle, String)>,
    seconds: BTreeMap<String, f64>,
    clock: Option<SweepClock>,
}

struct Session {
    args: RunArgs,
    steps: Arc<Steps>,
    held: Mutex<Held>,
}

impl Session {
    fn held<T>(&self, with: impl FnOnce(&mut Held) -> T) -> T {
        with(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How to go on.
    fn resume(&self) -> String {
        format!("go on with `{}`; nothing acknowledged is lost", self.args.again())
    }

    async fn work(&self) -> Result<u8, Fail> {
        let began = Instant::now();
        let (watcher, shown) = Token::issue(Role::Submit, None, None)?;
        let web = self.args.http.map(|http| web::private(http, watcher)).transpose()?;
        let (out, made) = self.prepare().await?;
        if !folder::state(&out).exists() {
            // Before anything is written; what is done already needs no worker.
            supervise::find_worker()?;
        }
        let new = made.into_new(out.clone());
        let lock = folder::claim(&out, &new.plan, self.args.resume).await?;
        self.held(|h| h.lock = Some(lock));
        let sqlite = SqliteStore::open(&folder::state(&out)).await.map_err(|e| self.failed(e))?;
        self.held(|h| h.store = Some(sqlite.clone()));
        let store: Arc<dyn Store> = Arc::new(sqlite);
        // A loopback port is open to every user of the machine: only those who have the token may use it.
        let (token, word) = Token::issue(Role::Worker, None, None)?;
        let scheduler = Scheduling { audit: millionths(self.args.audit), ..Scheduling::default() };
        let options = Options { security: Security::private(token), scheduler, ..Options::default() };
        let service = Service::start(options, Arc::clone(&store)).await.map_err(|e| self.failed(e))?;
        let (id, existed) = service.submit(new).await.map_err(|e| self.failed(e))?;
        let _dashboard = web.map(|web| self.show(web, &service, &id, &shown)).transpose()?;
        let first = if existed { self.wake(&service, &id).await? } else { None };
        if !first.as_ref().is_some_and(Status::ended) {
            self.held(|h| {
                h.service = Some((service.clone(), id.clone()));
                h.seconds.insert("prepare".to_owned(), began.elapsed().as_secs_f64());
                h.clock = Some(SweepClock::start(first.as_ref()));
            });
            self.sweep(&service, &id, &out, Secret::from(word)).await?;
            self.record().await?;
        }
        let status = status_of(&service, &id)
            .ok_or_else(|| Fail::failed("the experiment is gone").help(self.resume()))?;
        service.shutdown();
        let mut results = store.results(&id).await.map_err(|e| self.failed(e))?;
        version(&mut results);
        self.finish(results, &status, &out).await
    }

    /// Serves the dashboard, and says where. Who may act there has the token, which is shown on a terminal only: logs are read by others.
    fn show(&self, web: web::Web, service: &Handle, id: &str, token: &str) -> Result<web::Served, Fail> {
        let served = web.serve_run(service)?;
        let url = format!("http://{}/#/{}", served.local_addr(), &id[..id.len().min(16)]);
        if self.args.json {
            say::out(serde_json::json!({ "dashboard": url }));
        } else if std::io::stderr().is_terminal() {
            say::err(format_args!("dashboard: {url}?token={token}"));
        } else {
            say::err(format_args!("dashboard: {url} (to look only)"));
        }
        Ok(served)
    }

    /// A failure of the run, with how to resume.
    fn failed(&self, e: impl Into<Fail>) -> Fail {
        let mut fail = e.into();
        if fail.code == 2 {
            fail.code = 1;
        }
        fail.then(self.resume())
    }

    /// Reads the spec, looks at the folder, prepares: nothing is written yet.
    async fn prepare(&self) -> Result<(PathBuf, Made), Fail> {
        let (path, wish, resume) = (self.args.spec.clone(), self.args.out.clone(), self.args.resume);
        let steps = Arc::clone(&self.steps);
        let made = tokio::task::spawn_blocking(move || {
            let spec = experiment::read(&path)?;
            let out = wish.unwrap_or_else(|| Path::new("runs").join(&spec.spec.name));
            folder::look(&out, resume)?;
            Ok((out, spec.prepare(&steps)?))
        });
        made.await.map_err(|e| Fail::failed(format!("preparing ended early: {e}")))?
    }

    /// What was left paused, cancelled, failed or set aside goes on: running again is the wish to have it done.
    async fn wake(&self, service: &Handle, id: &str) -> Result<Option<Status>, Fail> {
        let Some(mut status) = status_of(service, id) else { return Ok(None) };
        if status.state == "paused" {
            status = service.control(id, Control::Resume).await.map_err(|e| self.failed(e))?;
        } else if status.state == "cancelled" {
            status = service.control(id, Control::Retry).await.map_err(|e| self.failed(e))?;
        } else if status.state == "failed"
            || status.quarantined > 0
            || (status.state == "done" && status.accepted < status.planned)
        {
            // Rounds that came after a chunk that was set aside are missing too.
            let missing = status.planned - status.accepted;
            say::err(format_args!("trying what failed before again: {missing} chunks are missing"));
            status = service.control(id, Control::Retry).await.map_err(|e| self.failed(e))?;
        }
        if status.accepted > 0 && !status.ended() {
            let (have, of) = (status.accepted, status.planned);
            if self.args.json {
                say::out(serde_json::json!({"resumed": true, "accepted": have, "planned": of}));
            } else {
                say::err(format_args!("resuming: {have} of {of} chunks are there"));
            }
        }
        Ok(Some(status))
    }

    /// Runs workers until the experiment has ended.
    async fn sweep(&self, service: &Handle, id: &str, out: &Path, token: Secret) -> Result<(), Fail> {
        let mut statuses = service.subscribe();
        let mut fatal = service.fatal();
        let mut workers = self.start_workers(service.local_addr(), out, token)?;
        loop {
            tokio::select! {
                Some(fail) = workers.failures.recv() => return Err(fail.or_help(self.resume())),
                Ok(()) = fatal.changed() => {
                    let why = fatal.borrow_and_update().clone();
                    if let Some(why) = why {
                        let fail = Fail::with_advice(1, why.what()).at(out.display().to_string());
                        return Err(fail.then(self.resume()));
                    }
                }
                changed = statuses.changed() => {
                    if changed.is_err() {
                        return Err(Fail::failed("the coordinator stopped").help(self.resume()));
                    }
                    let status = statuses.borrow_and_update().get(id).cloned();
                    let Some(status) = status else { continue };
                    self.held(|h| h.clock.as_mut().map(|c| c.see(&status)));
                    self.steps.sweep(&status);
                    if status.ended() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn start_workers(
        &self,
        coordinator: std::net::SocketAddr,
        out: &Path,
        token: Secret,
    ) -> Result<Workers, Fail> {
        let args = &self.args;
        for slot in 0..args.workers {
            // A fresh log each run: the last words in it are this run's.
            let log = supervise::log(out, slot);
            File::create(&log).map_err(on(&log))?;
        }
        Ok(supervise::start(
            &supervise::Setup {
                program: supervise::find_worker()?,
                coordinator,
                token,
                device: args.device.clone(),
                threads: args.threads_per_lane(),
                memory: args.memory,
                folder: out.to_path_buf(),
            },
            args.workers,
        ))
    }

    /// Writes tables and report, prints what matters.
    async fn finish(&self, results: Results, status: &Status, out: &Path) -> Result<u8, Fail> {
        const STEP: &str = "write tables and report";
        self.steps.at(STEP, 0, 3);
        let (folder, steps) = (out.to_path_buf(), Arc::clone(&self.steps));
        let report = out.join("report.html");
        let text = tokio::task::spawn_blocking(move || -> anyhow::Result<String> {
            let analysis = ablate_output::analyse(&results);
            steps.at(STEP, 1, 3);
            ablate_output::export_analysed(&results, &analysis, &folder, ablate_output::Format::Parquet)?;
            steps.at(STEP, 2, 3);
            ablate_output::present(&results, &analysis, &folder)?;
            steps.at(STEP, 3, 3);
            Ok(ablate_output::headline_analysed(&results, &analysis))
        })
        .await
        .map_err(|e| Fail::failed(format!("writing tables ended early: {e}")).help(self.resume()))?
        .map_err(|e| {
            Fail::failed(format!("the tables can't be written: {e:#}"))
                .at(out.display().to_string())
                .help("free some space or mend the folder; the same command writes them again")
        })?;
        self.steps.clear();
        let ended = Outcome {
            state: &status.state,
            planned: status.planned,
            accepted: status.accepted,
            quarantined: status.quarantined,
        };
        let code = ended.code();
        if self.args.json {
            let path = out.join("summary.json");
            let summary = std::fs::read_to_string(&path).map_err(on(&path))?;
            let value: serde_json::Value = serde_json::from_str(&summary)
                .map_err(|e| Fail::failed(format!("summary.json can't be read back: {e}")))?;
            say::out(serde_json::json!({"done": true, "state": status.state, "id": status.id, "folder": out,
                "report": report, "missing": ended.missing(), "quarantined": status.quarantined,
                "exit_code": code, "summary": value}));
        } else {
            say::out(text.trim_end());
            say::out(format_args!("report: {}", report.display()));
        }
        if let Some(warning) = ended.warning("run.json says why", &self.args.again()) {
            say::err(warning);
        }
        match (code, status.state.as_str()) {
            (0 | 3, _) => {}
            (_, "cancelled") => {
                return Err(Fail::failed("the experiment was cancelled").help(self.resume()));
            }
            _ => return Err(Fail::with_advice(1, &status.error).or_help(self.resume())),
        }
        Ok(code)
    }

    /// Stores what each step took.
    async fn record(&self) -> Result<(), Fail> {
        let counted = self.held(|h| {
            let (service, id) = h.service.clone()?;
            let mut seconds = std::mem::take(&mut h.seconds);
            seconds.extend(h.clock.take().map(|c| c.seconds()).unwrap_or_default());
            (!seconds.is_empty()).then_some((service, id, seconds))
        });
        let Some((service, id, seconds)) = counted else { return Ok(()) };
        service.add_seconds(&id, &seconds).await.map_err(|e| self.failed(e))
    }

    /// Folds the log into the database. What is in flight is computed again; what is committed is safe
    /// whatever happens here.
    async fn close(&self) {
        let all = async {
            // A run that failed has said why already.
            let _ = self.record().await;
            if let Some((service, _)) = self.held(|h| h.service.take()) {
                service.shutdown();
            }
            if let Some(store) = self.held(|h| h.store.take()) {
                store.close().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
        self.held(|h| h.lock.take());
    }
}

fn status_of(service: &Handle, id: &str) -> Option<Status> {
    service.subscribe().borrow().get(id).cloned()
}

/// Versions for `run.json`.
pub fn version(results: &mut Results) {
    let run = &mut results.run;
    run.versions.insert("ablate".into(), env!("CARGO_PKG_VERSION").into());
    run.versions.insert("engine".into(), ablate_common::ENGINE_VERSION.to_string());
    // Every device class names the libtorch that made it.
    let mut torch: Vec<&str> = run
        .device_classes
        .keys()
        .flat_map(|class| class.split("; "))
        .filter_map(|part| part.strip_prefix("libtorch "))
        .collect();
    torch.sort_unstable();
    torch.dedup();
    if !torch.is_empty() {
        run.versions.insert("libtorch".into(), torch.join(", "));
    }
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
