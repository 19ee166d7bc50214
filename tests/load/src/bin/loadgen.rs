//! `ablate-loadgen`: many imitation workers for one coordinator.
#![allow(clippy::print_stdout, reason = "a program")]

use ablate_load::{Options, run};
use clap::Parser;
use std::time::Duration;

/// Loads a coordinator with imitation workers, which make up their scores
///
/// Never point it at a coordinator whose results are wanted: what it sends is stored as any worker's.
#[derive(Debug, Parser)]
#[command(name = "ablate-loadgen", version)]
struct Args {
    /// The coordinator's URL
    #[arg(long, env = "ABLATE_COORDINATOR", value_name = "URL")]
    coordinator: String,
    /// How many workers, each with a connection of its own
    #[arg(long, default_value_t = 100)]
    workers: u32,
    /// How long a worker takes for a chunk, in milliseconds
    #[arg(long, default_value_t = 190)]
    chunk_ms: u64,
    /// Results that a worker may have unacknowledged
    #[arg(long, default_value_t = 16)]
    window: u32,
    /// How long to go on
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seconds at the beginning that aren't counted
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// End once so many chunks are acknowledged
    #[arg(long)]
    chunks: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let summary = run(Options {
        url: args.coordinator,
        workers: args.workers,
        chunk: Duration::from_millis(args.chunk_ms),
        window: args.window.max(1),
        time: Duration::from_secs(args.seconds),
        warm_up: Duration::from_secs(args.warm_up),
        chunks: args.chunks,
    })
    .await?;
    println!("{}", serde_json::to_string(&summary)?);
    match summary.refused {
        Some(why) => anyhow::bail!("refused: {why}"),
        None => Ok(()),
    }
}
