//! `ablate doctor`: what works here, and what to do about the rest.

use super::args::DoctorArgs;
use super::fail::Fail;
use super::say;
use super::supervise;
use ablate_coordinator::store::{SqliteStore, Store};
use std::time::{SystemTime, UNIX_EPOCH};

struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    fix: &'static str,
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

/// `ablate doctor`.
pub async fn doctor(args: &DoctorArgs) -> Result<u8, Fail> {
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
    checks.push(Check {
        name: "worker, libtorch, devices, NCCL",
        ok,
        found,
        fix: "run `make build`, which sets libtorch up and builds both programs",
    });
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
    checks.push(match store {
        Ok(_) => Check { name: "store (SQLite)", ok: true, found: "writes durably".into(), fix: "" },
        Err(e) => Check {
            name: "store (SQLite)",
            ok: false,
            found: e,
            fix: "make the temporary folder writable, or free some space",
        },
    });
    let year = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 31_556_952 + 1970);
    checks.push(Check {
        name: "clock",
        ok: year >= 2025,
        found: format!("the year is {year}"),
        fix: "set the clock",
    });
    match rustix::fs::statvfs(".") {
        Ok(s) => {
            let free = s.f_bavail * s.f_frsize / 1_000_000;
            checks.push(Check {
                name: "disk",
                ok: free >= 1000,
                found: format!("{free} MB free here"),
                fix: "free at least 1 GB",
            });
        }
        Err(e) => checks.push(Check {
            name: "disk",
            ok: false,
            found: e.to_string(),
            fix: "run in a folder that can be read",
        }),
    }
    let well = checks.iter().all(|c| c.ok);
    if args.json {
        let all: Vec<serde_json::Value> =
            checks.iter().map(|c| serde_json::json!({"check": c.name, "ok": c.ok, "found": c.found, "fix": if c.ok { "" } else { c.fix }})).collect();
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
