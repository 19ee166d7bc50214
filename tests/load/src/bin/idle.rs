//! `make idle`: how long workers wait for their coordinator in a real sweep. Prints a table and writes target/proof/idle.json.
#![allow(clippy::print_stdout, reason = "a program")]

use ablate_load::idle::{Sweep, measure};
use anyhow::ensure;
use clap::Parser;
use std::path::PathBuf;

/// Share of its time that a worker may wait.
const MOST: f64 = 0.01;

/// Measures how long the workers of a real sweep wait for their coordinator
#[derive(Debug, Parser)]
#[command(name = "ablate-idle", version)]
struct Args {
    /// Workers, of one lane of one thread each
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Pairs of texts of the task: more make longer chunks
    #[arg(long, default_value_t = 200)]
    pairs: usize,
    /// Tokens of a text, at most
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// A folder for everything, emptied first
    #[arg(long, default_value = "target/idle")]
    folder: PathBuf,
    /// Where the figures go
    #[arg(long, default_value = "target/proof/idle.json")]
    json: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.folder.exists() {
        std::fs::remove_dir_all(&args.folder)?;
    }
    std::fs::create_dir_all(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let sweep = Sweep { pairs: args.pairs, tokens: args.tokens, workers: args.workers };
    let shares = measure(&folder, sweep)?;
    println!("{:<28} {:>8} {:>10} {:>10} {:>8}", "worker", "chunks", "busy s", "idle ms", "% idle");
    for s in &shares {
        println!(
            "{:<28} {:>8} {:>10.2} {:>10.2} {:>8.3}",
            s.worker,
            s.chunks,
            s.busy_s,
            1000.0 * s.idle_s,
            100.0 * s.idle_share
        );
    }
    if let Some(parent) = args.json.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&args.json, serde_json::to_string_pretty(&shares)?)?;
    println!("written: {}", args.json.display());
    ensure!(shares.len() == args.workers, "{} of {} workers are there", shares.len(), args.workers);
    for s in &shares {
        ensure!(s.chunks > 0 && s.idle_share <= MOST, "{} waits for more than 1 % of its time", s.worker);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
