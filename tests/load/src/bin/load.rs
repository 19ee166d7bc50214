//! `make load`: one coordinator with the load of a large cluster, on this machine. Prints a table and writes
//! target/proof/load.json; fails where a target is missed. What it is asked to bear is imitated; the coordinator, its store and the
//! sockets are real.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use ablate_load::model::{self, Size};
use ablate_load::service::{Service, ablate, said};
use ablate_load::targets::TARGETS;
use ablate_load::{Options, Summary, run};
use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// 80 layers of 64 heads, as a model of 70 billion weights has: 13,104,640 pairs.
const SIZE: Size = Size { layers: 80, heads: 64 };

/// Results that a real worker may have unacknowledged: 16 MiB of them (`worker/client/src/spool.rs`), at 4.8 kB each.
const REAL_WINDOW: u32 = 3400;

/// Measures a coordinator under the load of many workers
#[derive(Debug, Parser)]
#[command(name = "ablate-load", version)]
struct Args {
    /// Workers at once
    #[arg(long, default_value_t = 1000)]
    workers: u32,
    /// How long a worker takes for a chunk, in milliseconds
    #[arg(long, default_value_t = 190)]
    chunk_ms: u64,
    /// How long the workers go on
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Results stored before the coordinator is killed
    #[arg(long, default_value_t = 156_250)]
    chunks: u64,
    /// A folder for everything, emptied first
    #[arg(long, default_value = "target/load")]
    folder: PathBuf,
    /// Another store than SQLite in the folder
    #[arg(long, env = "ABLATE_LOAD_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Where the figures go
    #[arg(long, default_value = "target/proof/load.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.folder.exists() {
        std::fs::remove_dir_all(&args.folder)?;
    }
    std::fs::create_dir_all(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let spec = model::write(&folder, SIZE)?;
    let began = Instant::now();
    let mut plan = Command::new(ablate()?);
    plan.arg("plan").arg(&spec);
    said(plan)?;
    let plan_s = began.elapsed().as_secs_f64();
    let store = args.store.clone().unwrap_or_else(|| format!("sqlite://{}/ablate.db", folder.display()));
    let mut service = Service::new(&folder, &store)?;
    service.start()?;
    service.wait()?;
    let began = Instant::now();
    service.client(&["submit", spec.to_str().context("a path that isn't UTF-8")?])?;
    let submit_s = began.elapsed().as_secs_f64();
    let options = Options {
        url: service.url(),
        workers: args.workers,
        chunk: Duration::from_millis(args.chunk_ms),
        window: 16,
        time: Duration::from_secs(args.seconds + 5),
        warm_up: Duration::from_secs(5),
        chunks: None,
    };

    // One worker that waits for each acknowledgement: what its loop costs the coordinator.
    let one = Options {
        workers: 1,
        chunk: Duration::ZERO,
        window: 1,
        time: Duration::from_secs(10),
        warm_up: Duration::ZERO,
        ..options.clone()
    };
    let (alone, alone_us) = measured(&service, one.clone()).await?;
    // One that goes on as real ones do: chunks of the next shard follow while results wait for their acknowledgements.
    // The others need chunks as well.
    let lone = Options { window: REAL_WINDOW, chunks: Some(5_000), ..one };
    let (lone, lone_us) = measured(&service, lone).await?;
    let (paced, paced_us) = measured(&service, options.clone()).await?;
    let paced_mb = service.peak_mb()?;
    // As fast as it goes, until there is as much as wanted.
    let stored = alone.acknowledged + lone.acknowledged + paced.acknowledged;
    let fill = Options {
        workers: 64,
        chunk: Duration::ZERO,
        time: Duration::from_mins(5),
        warm_up: Duration::ZERO,
        chunks: Some(args.chunks.saturating_sub(stored).max(1)),
        ..options.clone()
    };
    let (full, full_us) = measured(&service, fill).await?;
    let stored = stored + full.acknowledged;
    ensure!(stored >= args.chunks, "only {stored} of {} chunks were stored in 5 minutes", args.chunks);
    let peak_mb = service.peak_mb()?;

    service.kill()?;
    let killed = Instant::now();
    service.start()?;
    let before = killed.elapsed().as_secs_f64();
    let again =
        Options { workers: 1, chunk: Duration::ZERO, warm_up: Duration::ZERO, chunks: Some(1), ..options };
    let after = run(again).await?;
    let recover_s = before + after.first_shard_s.context("the restarted coordinator leased nothing")?;
    let restarted_mb = service.peak_mb()?;

    let row = json!({
        "store": if args.store.is_some() { "postgres" } else { "sqlite" },
        "workers": args.workers,
        "pairs": SIZE.pairs(),
        "plan_s": plan_s,
        "submit_s": submit_s,
        "chunk_bytes": paced.chunk_bytes,
        "chunks_per_s": paced.chunks_per_s,
        "lease_p50_ms": paced.lease_p50_ms,
        "lease_p99_ms": paced.lease_p99_ms,
        "ack_p50_ms": paced.ack_p50_ms,
        "ack_p99_ms": paced.ack_p99_ms,
        "cpu_us_per_chunk": paced_us,
        "alone_chunks_per_s": alone.chunks_per_s,
        "alone_cpu_us_per_chunk": alone_us,
        "lone_chunks_per_s": lone.chunks_per_s,
        "lone_cpu_us_per_chunk": lone_us,
        "lone_chunks_per_shard": lone.acknowledged as f64 / lone.shards.max(1) as f64,
        "full_chunks_per_s": full.chunks_per_s,
        "full_cpu_us_per_chunk": full_us,
        "stored_subsets": stored * 64,
        "rss_mb": peak_mb.max(paced_mb),
        "rss_mb_restarted": restarted_mb,
        "recover_s": recover_s,
        "reconnects": paced.reconnects + full.reconnects,
        "duplicates": paced.duplicates + full.duplicates,
    });
    show(&row);
    if let Some(parent) = args.json.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&args.json, serde_json::to_string_pretty(&[&row])?)?;
    println!("written: {}", args.json.display());
    drop(service);
    std::fs::remove_dir_all(&folder)?;
    TARGETS.iter().for_each(|t| println!("{}", t.told(&row)));
    Ok(ExitCode::from(u8::from(!TARGETS.iter().all(|t| t.met(&row)))))
}

/// A load, and the coordinator's processor time per acknowledged chunk in µs.
async fn measured(service: &Service, options: Options) -> anyhow::Result<(Summary, f64)> {
    let before = service.cpu()?;
    let summary = run(options).await?;
    if let Some(why) = &summary.refused {
        anyhow::bail!("refused: {why}");
    }
    let used = (service.cpu()? - before).as_secs_f64() * 1e6;
    eprintln!("{}", serde_json::to_string(&summary)?);
    let per_chunk = used / summary.acknowledged.max(1) as f64;
    Ok((summary, per_chunk))
}

fn show(row: &Value) {
    for (name, value) in row.as_object().into_iter().flatten() {
        match value.as_f64().filter(|v| v.fract() != 0.0) {
            Some(v) => println!("{name:<24} {v:>14.3}"),
            None => println!("{name:<24} {:>14}", value.to_string().trim_matches('"')),
        }
    }
}
