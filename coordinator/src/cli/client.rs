//! Commands that speak to a coordinator.

use super::args::{ClientArgs, ExportArgs, MaybeOneArgs, OneArgs, ReportArgs, SubmitArgs, TableFormat};
use super::coordinators::{Client, leader as connect};
use super::fail::Fail;
use super::run::version;
use super::say;
use ablate_coordinator::store::{SqliteStore, Store};
use ablate_output::results::Results;
use ablate_proto::v1::{self, control_request::Action};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

/// What a user does to an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Pause,
    Resume,
    Cancel,
    Retry,
}

impl Wish {
    /// The command of that name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }

    /// On the wire.
    pub fn action(self) -> Action {
        match self {
            Self::Pause => Action::Pause,
            Self::Resume => Action::Resume,
            Self::Cancel => Action::Cancel,
            Self::Retry => Action::Retry,
        }
    }
}

/// A coordinator's refusal, for users.
pub fn refused(status: tonic::Status) -> Fail {
    use tonic::Code;
    match status.code() {
        Code::Unauthenticated => Fail::wrong(format!("the coordinator refuses this caller: {}", status.message()))
            .help("give a token of `ablate token create` in $ABLATE_TOKEN or --token-file, or a certificate with --cert and --key"),
        Code::PermissionDenied => Fail::wrong(format!("the coordinator refuses this call: {}", status.message()))
            .help("ask its operator for one with that role (`ablate token create --role ...`)"),
        Code::ResourceExhausted if ablate_proto::retry_after(&status).is_none() => Fail::wrong(status.message()),
        Code::OutOfRange => Fail::wrong(status.message()),
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::Unimplemented => {
            Fail::wrong(status.message())
        }
        _ => Fail::failed(format!("the coordinator failed: {}", status.message())),
    }
}

/// How long a client that calls too often waits, as it is told to, before it gives up.
const OBEYS: std::time::Duration = std::time::Duration::from_secs(60);

/// Makes a call, again and later where the coordinator says that there were too many.
pub async fn asked<T>(
    args: &ClientArgs,
    mut call: impl AsyncFnMut(&mut Client) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, Fail> {
    let mut client = connect(args).await?;
    let began = std::time::Instant::now();
    loop {
        match call(&mut client).await {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) => match ablate_proto::retry_after(&status) {
                Some(after) if began.elapsed() + after < OBEYS => tokio::time::sleep(after).await,
                _ => return Err(refused(status)),
            },
        }
    }
}

fn json(s: &v1::ExperimentStatus) -> serde_json::Value {
    let sweeps: Vec<serde_json::Value> = s
        .sweeps
        .iter()
        .map(|w| {
            serde_json::json!({"name": w.name, "subsets_total": w.subsets_total, "subsets_done": w.subsets_done,
                "chunks_total": w.chunks_total, "chunks_done": w.chunks_done, "round": w.round, "rounds": w.rounds})
        })
        .collect();
    serde_json::json!({"id": s.id, "name": s.name, "state": s.state, "error": s.error, "output": s.output, "workers": s.workers,
        "chunks": {"planned": s.chunks_planned, "computed": s.chunks_computed, "accepted": s.chunks_accepted,
            "duplicate": s.chunks_duplicate, "quarantined": s.quarantined}, "sweeps": sweeps})
}

fn quarantined(s: &v1::ExperimentStatus) -> serde_json::Value {
    let of = |q: &v1::QuarantinedChunk| serde_json::json!({"sweep": q.sweep, "name": q.sweep_name, "round": q.round, "chunk": q.chunk, "error": q.error});
    s.quarantined_chunks.iter().map(of).collect()
}

/// A status in one line.
pub fn line(s: &v1::ExperimentStatus) -> String {
    format!(
        "{}  {:<24} {:<10} {:>7}/{:<7} chunks  {} workers{}",
        &s.id[..s.id.len().min(16)],
        s.name,
        s.state,
        s.chunks_accepted,
        s.chunks_planned,
        s.workers,
        if s.quarantined > 0 { format!("  {} quarantined", s.quarantined) } else { String::new() }
    )
}

/// A status, and with `whole` its sweeps and what is wrong.
pub fn print(s: &v1::ExperimentStatus, as_json: bool, whole: bool) {
    if as_json {
        let mut all = json(s);
        // Lists have their number only.
        if whole && (s.quarantined == 0 || !s.quarantined_chunks.is_empty()) {
            all["quarantined_chunks"] = quarantined(s);
        }
        say::out(format_args!("{all}"));
        return;
    }
    say::out(format_args!("{}", line(s)));
    if whole {
        for w in &s.sweeps {
            say::out(format_args!(
                "  {:<24} {:>9}/{:<9} subsets  round {}/{}",
                w.name,
                w.subsets_done,
                w.subsets_total,
                (w.round + 1).min(w.rounds),
                w.rounds
            ));
        }
        for q in &s.quarantined_chunks {
            let (sweep, round, chunk) = (&q.sweep_name, q.round, q.chunk);
            say::out(format_args!("  quarantined: {sweep}, round {round}, chunk {chunk}: {}", q.error));
        }
        if !s.error.is_empty() {
            say::out(format_args!("  {}", s.error));
        }
    }
}

/// `ablate submit`.
pub async fn submit(args: SubmitArgs) -> Result<u8, Fail> {
    let spec_toml = std::fs::read_to_string(&args.spec)
        .map_err(|e| Fail::wrong(format!("{}: {e}", args.spec.display())))?;
    let folder = args.spec.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let base_dir = folder.canonicalize()?.to_string_lossy().into_owned();
    let request = v1::SubmitRequest { spec_toml, base_dir, origin: args.spec.display().to_string() };
    let reply = asked(&args.client, async |c| c.submit(request.clone()).await).await?;
    if args.client.json {
        say::out(format_args!("{}", serde_json::json!({"id": reply.id, "existed": reply.existed})));
    } else {
        say::out(format_args!("{}{}", reply.id, if reply.existed { " (was there already)" } else { "" }));
        if reply.existed
            && let request = (v1::StatusRequest { id: reply.id.clone() })
            && let Ok(status) = asked(&args.client, async |c| c.status(request.clone()).await).await
            && ["cancelled", "failed"].contains(&status.state.as_str())
        {
            let state = &status.state;
            say::err(format_args!("note: it is {state}; `ablate retry {}` takes it up again", reply.id));
        }
    }
    Ok(0)
}

/// `ablate list`.
pub async fn list(args: ClientArgs) -> Result<u8, Fail> {
    let reply = asked(&args, async |c| c.list(v1::ListRequest {}).await).await?;
    if reply.experiments.is_empty() && !args.json {
        say::err("there are no experiments; `ablate submit SPEC` hands one in");
    }
    reply.experiments.iter().for_each(|s| print(s, args.json, false));
    Ok(0)
}

/// `ablate status`.
pub async fn status(args: MaybeOneArgs) -> Result<u8, Fail> {
    let all = match args.id {
        Some(id) => {
            let request = v1::StatusRequest { id };
            vec![asked(&args.client, async |c| c.status(request.clone()).await).await?]
        }
        None => asked(&args.client, async |c| c.list(v1::ListRequest {}).await).await?.experiments,
    };
    all.iter().for_each(|s| print(s, args.client.json, true));
    Ok(0)
}

/// `ablate pause | resume | cancel | retry`.
pub async fn control(args: OneArgs, wish: Wish) -> Result<u8, Fail> {
    let request = v1::ControlRequest { id: args.id, action: wish.action().into() };
    let status = asked(&args.client, async |c| c.control(request.clone()).await).await?;
    print(&status, args.client.json, false);
    Ok(0)
}

/// `ablate workers`.
pub async fn workers(args: ClientArgs) -> Result<u8, Fail> {
    let reply = asked(&args, async |c| c.workers(v1::WorkersRequest {}).await).await?;
    for w in reply.workers {
        let lanes: Vec<&str> = w.lanes.iter().map(|l| l.device.as_str()).collect();
        let all = w.busy_us + w.idle_us;
        let idle = if all > 0 { w.idle_us as f64 / all as f64 } else { 0.0 };
        if args.json {
            say::out(format_args!(
                "{}",
                serde_json::json!({"id": w.id, "name": w.name, "version": w.version, "protocol": w.protocol, "lanes": lanes,
                "leased_chunks": w.leased_chunks, "accepted_chunks": w.accepted_chunks, "failures": w.failures, "connected_ms": w.connected_ms,
                "busy_s": w.busy_us as f64 / 1e6, "idle_s": w.idle_us as f64 / 1e6, "idle_share": idle})
            ));
        } else {
            say::out(format_args!(
                "{:>4}  {:<28} {:<16} {:>6} leased {:>8} accepted {:>4} failures {:>5.1} % idle",
                w.id,
                w.name,
                lanes.join(","),
                w.leased_chunks,
                w.accepted_chunks,
                w.failures,
                100.0 * idle
            ));
        }
    }
    Ok(0)
}

/// Results of a folder of `ablate run`.
pub(super) async fn of_folder(folder: &Path) -> Result<Results, Fail> {
    let state = folder.join("state.db");
    if !state.exists() {
        return Err(Fail::wrong(format!(
            "{} has no state.db: it isn't the folder of a run",
            folder.display()
        )));
    }
    let store = SqliteStore::open(&state).await.map_err(|e| {
        Fail::wrong(format!("the state of the run can't be read: {e}")).at(state.display().to_string())
    })?;
    let id = store.experiments().await?.first().map(|s| s.id.clone());
    let id = id.ok_or_else(|| Fail::wrong(format!("{} holds no experiment yet", folder.display())))?;
    let mut results = store.results(&id).await?;
    store.close().await;
    version(&mut results);
    Ok(results)
}

/// Files of an experiment of a coordinator, into a folder.
async fn fetch(what: &str, format: TableFormat, folder: &Path, client: &ClientArgs) -> Result<(), Fail> {
    let request = v1::ExportRequest { id: what.to_owned(), format: format.name().to_owned() };
    let mut stream = asked(client, async |c| c.export(request.clone()).await).await?;
    made(folder)?;
    let mut open: Option<(String, std::fs::File)> = None;
    while let Some(part) = stream.message().await.map_err(refused)? {
        if open.as_ref().is_none_or(|(n, _)| *n != part.name) {
            let path = within(folder, &part.name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            open = Some((part.name.clone(), std::fs::File::create(path)?));
        }
        if let Some((_, file)) = &mut open {
            file.write_all(&part.data)?;
        }
    }
    Ok(())
}

/// Where a file that a coordinator named goes: into `folder`, or one plain folder below it. Any other name would be the
/// coordinator's fault: of that only the last part is taken.
fn within(folder: &Path, name: &str) -> PathBuf {
    let parts: Vec<Component<'_>> = Path::new(name).components().collect();
    match parts.as_slice() {
        [Component::Normal(file)] => folder.join(file),
        [Component::Normal(below), Component::Normal(file)] => folder.join(below).join(file),
        _ => folder.join(Path::new(name).file_name().unwrap_or_default()),
    }
}

/// Makes a folder that the user named.
fn made(folder: &Path) -> Result<(), Fail> {
    std::fs::create_dir_all(folder).map_err(|e| {
        Fail::wrong(format!("--out {}: {e}", folder.display())).help("name a folder that can be written")
    })
}

/// Says so where tables lack chunks of the plan.
fn warn_partial(partial: bool, what: &str) {
    if partial {
        say::err(format_args!(
            "warning: {what} isn't complete: the tables hold what has been computed so far"
        ));
    }
}

/// Whether the tables of a folder say that they lack chunks.
fn says_partial(folder: &Path) -> bool {
    let text = std::fs::read(folder.join("run.json")).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|v| v["partial"] == true)
}

/// Whether a run's folder is named here. A folder with nothing but tables is where an export of that name wrote: it is asked for again. A path
/// is no name.
fn is_folder(what: &str) -> bool {
    let folder = Path::new(what);
    folder.join("state.db").is_file() || (folder.is_dir() && what.contains(['/', '.']))
}

/// What is neither a run's folder here nor an experiment there.
fn no_folder(e: Fail, what: &str) -> Fail {
    if what.contains(['/', '.']) {
        return Fail::wrong(format!("there is no folder {what}"))
            .help("give the folder of an `ablate run`, or the name or id of a coordinator's experiment");
    }
    let runs = Path::new("runs").join(what);
    if runs.is_dir() {
        return e.then(format_args!("or give the folder of an `ablate run`: {}", runs.display()));
    }
    if Path::new(what).is_dir() {
        return e.then(format_args!("or give the folder of an `ablate run`: {what} here has no state.db"));
    }
    e.then(format_args!("or give the folder of an `ablate run`: there is no folder {what} here"))
}

/// `ablate export`.
pub async fn export(args: ExportArgs) -> Result<u8, Fail> {
    let folder = Path::new(&args.what);
    let out: PathBuf;
    if is_folder(&args.what) {
        let results = of_folder(folder).await?;
        out = args.out.unwrap_or_else(|| folder.to_path_buf());
        made(&out)?;
        let format = match args.format {
            TableFormat::Parquet => ablate_output::Format::Parquet,
            TableFormat::Csv => ablate_output::Format::Csv,
            TableFormat::Json => ablate_output::Format::Json,
        };
        let written =
            ablate_output::export(&results, &out, format).map_err(|e| Fail::failed(format!("{e:#}")))?;
        warn_partial(written.partial, &args.what);
    } else {
        out = args.out.unwrap_or_else(|| PathBuf::from(&args.what));
        fetch(&args.what, args.format, &out, &args.client).await.map_err(|e| no_folder(e, &args.what))?;
        warn_partial(says_partial(&out), &args.what);
    }
    say::out(format_args!("{}", out.display()));
    Ok(0)
}

/// `ablate report`.
pub async fn report(args: ReportArgs) -> Result<u8, Fail> {
    let folder = Path::new(&args.what);
    let out: PathBuf;
    if is_folder(&args.what) {
        let beside = args.out.is_none();
        out = args.out.unwrap_or_else(|| folder.join("report.html"));
        if out.is_dir() || out.parent().is_some_and(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
            return Err(Fail::wrong(format!(
                "--out {}: not a file in a folder that is there",
                out.display()
            ))
            .help("name the HTML file to write"));
        }
        let results = of_folder(folder).await?;
        let analysis = ablate_output::analyse(&results);
        // Beside another file nobody asked for a folder of figures.
        let written = if beside {
            ablate_output::present(&results, &analysis, folder).map(drop)
        } else {
            ablate_output::report_analysed(&results, &analysis, &out)
        };
        written.map_err(|e| Fail::failed(format!("{e:#}")))?;
        warn_partial(ablate_output::partial(&results), &args.what);
    } else {
        let place = PathBuf::from(&args.what);
        let fetched = fetch(&args.what, TableFormat::Parquet, &place, &args.client).await;
        fetched.map_err(|e| no_folder(e, &args.what))?;
        warn_partial(says_partial(&place), &args.what);
        let made = place.join("report.html");
        out = match args.out {
            Some(out) => {
                std::fs::rename(&made, &out)?;
                out
            }
            None => made,
        };
    }
    say::out(format_args!("{}", out.display()));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{is_folder, within};
    use std::path::Path;

    #[test]
    fn a_folder_of_tables_alone_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        assert!(is_folder(here), "a path is never a name");
        assert!(!is_folder("src") && Path::new("src").is_dir());
        assert!(!is_folder("no-such"));
        std::fs::write(folder.path().join("state.db"), "").unwrap();
        assert!(is_folder(here));
    }

    #[test]
    fn no_name_of_a_coordinator_leaves_the_folder() {
        let at = |name| within(Path::new("out"), name);
        assert_eq!(at("heads.parquet"), Path::new("out/heads.parquet"));
        assert_eq!(at("figures/heads.svg"), Path::new("out/figures/heads.svg"));
        for name in ["../x", "/etc/x", "a/../x", "a/b/x", "a/../../x", "./../x"] {
            assert_eq!(at(name), Path::new("out/x"), "{name}");
        }
        assert_eq!(at(".."), Path::new("out/"), "no file's name: it can't be made");
    }
}
