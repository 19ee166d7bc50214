//! The output folder of `ablate run`: whose it is, and that one run at a time works in it.

use super::differ;
use super::fail::{Fail, on};
use ablate_common::plan::Plan;
use ablate_coordinator::store::{self, SqliteStore, Store};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Name of the store's file.
pub const STATE: &str = "state.db";
const LOCK: &str = "lock";

/// The database of a folder.
pub fn state(out: &Path) -> PathBuf {
    out.join(STATE)
}

/// Says, before any work and changing nothing, why a folder can't be a run's.
pub fn look(out: &Path, resume: bool) -> Result<(), Fail> {
    let name = out.display().to_string();
    let ours = state(out).exists();
    if resume && !ours {
        return Err(Fail::wrong("there is nothing to resume")
            .at(name)
            .help("leave --resume away to start, or name the right folder with --out"));
    }
    if out.exists() && !out.is_dir() {
        return Err(Fail::wrong("the output folder is a file").at(name).help("choose another with --out"));
    }
    let foreign = |e: std::io::Result<std::fs::DirEntry>| e.is_ok_and(|e| e.file_name() != LOCK);
    if !ours && std::fs::read_dir(out).is_ok_and(|mut d| d.any(foreign)) {
        return Err(Fail::wrong("the output folder holds files that aren't a run's")
            .at(name)
            .help("choose a new or empty folder with --out"));
    }
    Ok(())
}

/// Takes the folder for this plan, or says why it can't be this experiment's. It is held as long as the
/// file is.
pub async fn claim(out: &Path, plan: &Plan, resume: bool) -> Result<File, Fail> {
    look(out, resume)?;
    std::fs::create_dir_all(out).map_err(|e| {
        Fail::wrong(format!("the output folder can't be made: {e}"))
            .at(out.display().to_string())
            .help("choose another with --out")
    })?;
    let path = out.join(LOCK);
    let lock = File::create(&path).map_err(on(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Fail::wrong("another run is at work in the output folder")
                .at(out.display().to_string())
                .help("wait for it or stop it, or choose another folder with --out"));
        }
        Err(TryLockError::Error(e)) => return Err(on(&path)(e)),
    }
    let state = state(out);
    if state.exists() {
        compare(out, &open(&state).await?, plan, resume)?;
    }
    Ok(lock)
}

/// The experiments of a folder's store; what can't be read is the wrong folder rather than a failure.
async fn open(state: &Path) -> Result<Vec<store::Stored>, Fail> {
    let read = async {
        let store = SqliteStore::open(state).await?;
        let all = store.experiments().await;
        store.close().await;
        all
    };
    read.await.map_err(|e| match e {
        store::Error::DiskFull | store::Error::Busy => e.into(),
        e => Fail::wrong(format!("the state of the output folder can't be read: {e}"))
            .at(state.display().to_string())
            .help("choose another folder with --out"),
    })
}

fn compare(out: &Path, stored: &[store::Stored], plan: &Plan, resume: bool) -> Result<(), Fail> {
    let place = out.display().to_string();
    let Some(first) = stored.first() else {
        return if resume {
            Err(Fail::wrong("there is nothing to resume").at(place).help("leave --resume away to start"))
        } else {
            Ok(())
        };
    };
    if first.id != plan.identity() {
        let named = differ::differences(&first.plan, plan, 8).join("\n  ");
        return Err(Fail::wrong(format!(
            "the output folder holds a different experiment ({}); what differs:\n  {named}",
            first.plan.spec.name
        ))
        .at(place)
        .help("choose another folder with --out, or put back what differs; nothing was changed"));
    }
    Ok(())
}
