//! `ablate doctor`: what works here, and what to do about the rest.

use super::args::DoctorArgs;
use super::fail::Fail;
use super::say;
use super::stores::Place;
use super::supervise;
use ablate_coordinator::store::postgres::look;
use ablate_coordinator::store::{SqliteStore, Store};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    fix: String,
}

impl Check {
    fn good(name: &'static str, found: String) -> Self {
        Self { name, ok: true, found, fix: String::new() }
    }

    fn bad(name: &'static str, found: String, fix: impl Into<String>) -> Self {
        Self { name, ok: false, found, fix: fix.into() }
    }
}

/// The worker's findings in a few lines of plain text; as they are where they aren't JSON.
fn in_words(found: &str) -> String {
    let Ok(v) = serde_json::from_str::<serde_json::Value>(found) else { return found.to_owned() };
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut lines = vec![format!(
        "version {}, libtorch {} ({})",
        text(&v["version"]),
        text(&v["libtorch"]),
        text(&v["libtorch_path"])
    )];
    let list = |key: &str| v[key].as_array().cloned().unwrap_or_default();
    let gpus: Vec<String> = list("gpus").iter().map(text).collect();
    let gpus = if gpus.is_empty() { "none".to_owned() } else { gpus.join(", ") };
    lines.push(format!(
        "CUDA: {}; GPUs: {gpus}; NCCL: {}",
        text(&v["cuda"]),
        if v["nccl"] == true { "yes" } else { "no" }
    ));
    for lane in list("lanes") {
        lines.push(format!("lane {}: {}", text(&lane["device"]), text(&lane["class"])));
    }
    lines.extend(list("problems").iter().map(|p| format!("problem: {}", text(p))));
    lines.join("\n     ")
}

/// Whether the embedded store works on this machine.
async fn sqlite() -> Check {
    const NAME: &str = "store (SQLite)";
    let store = async {
        let folder = std::env::temp_dir().join(format!("ablate-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let tried = async {
            let store = SqliteStore::open(&folder.join("state.db")).await.map_err(|e| e.to_string())?;
            let epoch = store.acquire_epoch().await.map_err(|e| e.to_string());
            store.close().await;
            epoch
        }
        .await;
        // The system cleans its temporary folder up where this fails.
        let _ = std::fs::remove_dir_all(&folder);
        tried
    }
    .await;
    match store {
        Ok(_) => Check::good(NAME, "writes durably".into()),
        Err(e) => Check::bad(NAME, e, "make the temporary folder writable, or free some space"),
    }
}

/// The store that was named.
async fn named(url: &str) -> Check {
    const NAME: &str = "store that was named";
    let of = |e: Fail| {
        let (found, fix) = e.parts();
        Check::bad(NAME, found, fix)
    };
    match Place::read(url, "--store") {
        Err(e) => of(e),
        Ok(Place::Sqlite(path)) => {
            let place = format!("sqlite://{}", path.display());
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            match (path.is_file(), folder.is_dir()) {
                (true, _) => Check::good(NAME, format!("{place} is there")),
                (_, true) => Check::good(NAME, format!("{place} will be made")),
                _ => Check::bad(NAME, format!("{place}: its folder isn't there"), "make the folder"),
            }
        }
        Ok(Place::Postgres(address)) => match look(&address).await {
            Err(e) => of(Fail::from(e).at(address.to_string())),
            Ok(look) => {
                let tables = match look.migration {
                    None => "no tables yet".to_owned(),
                    Some(n) => format!("tables of migration {n}"),
                };
                let leader = look.leader.as_deref().map_or("nobody leads".into(), |u| format!("{u} leads"));
                let found = format!("{address}: PostgreSQL {}, {tables}, {leader}", look.version);
                match look.problem() {
                    None => Check::good(NAME, found),
                    Some((what, fix)) => Check::bad(NAME, format!("{found}; {what}"), fix),
                }
            }
        },
    }
}

/// `ablate doctor`.
pub async fn doctor(args: &DoctorArgs) -> Result<u8, Fail> {
    const WORKER: &str = "worker, libtorch, devices, NCCL";
    let mut checks = Vec::new();
    let worker = match supervise::find_worker() {
        Ok(program) => {
            tokio::process::Command::new(program).arg("--doctor").output().await.map_err(|e| e.to_string())
        }
        Err(_) => Err("there is no ablate-worker beside this program or on the path".to_owned()),
    };
    let (ok, found) = match worker {
        Ok(out) => {
            let text = String::from_utf8_lossy(if out.stdout.is_empty() { &out.stderr } else { &out.stdout })
                .trim()
                .to_owned();
            (out.status.success(), text)
        }
        Err(e) => (false, e),
    };
    checks.push(if ok {
        Check::good(WORKER, found)
    } else {
        Check::bad(WORKER, found, "run `make build`, which sets libtorch up and builds both programs")
    });
    checks.push(sqlite().await);
    if let Some(url) = &args.store {
        checks.push(named(url).await);
    }
    let year = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 31_556_952 + 1970);
    let found = format!("the year is {year}");
    checks.push(if year >= 2025 {
        Check::good("clock", found)
    } else {
        Check::bad("clock", found, "set the clock")
    });
    checks.push(match rustix::fs::statvfs(".") {
        Ok(s) => {
            let free = s.f_bavail * s.f_frsize / 1_000_000;
            let found = format!("{free} MB free here");
            if free >= 1000 {
                Check::good("disk", found)
            } else {
                Check::bad("disk", found, "free at least 1 GB")
            }
        }
        Err(e) => Check::bad("disk", e.to_string(), "run in a folder that can be read"),
    });
    let well = checks.iter().all(|c| c.ok);
    if args.json {
        let all: Vec<serde_json::Value> = checks
            .iter()
            .map(|c| serde_json::json!({"check": c.name, "ok": c.ok, "found": c.found, "fix": c.fix}))
            .collect();
        say::out(format_args!("{}", serde_json::json!({"ok": well, "checks": all})));
    } else {
        for c in &checks {
            say::out(format_args!(
                "{}  {}: {}",
                if c.ok { "ok " } else { "BAD" },
                c.name,
                in_words(&c.found)
            ));
            if !c.ok {
                say::out(format_args!("     do: {}", c.fix));
            }
        }
    }
    Ok(u8::from(!well))
}
