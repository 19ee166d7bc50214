//! `make chaos`: rounds of faults on a real MiniLM sweep, on SQLite and PostgreSQL. Prints a table and writes
//! target/proof/chaos.json.
#![allow(clippy::print_stdout, reason = "a program")]

use ablate_chaos::faults::Fault;
use ablate_chaos::rounds::{Store, Truth, outlasted};
use ablate_test_postgres::Server;
use anyhow::ensure;
use clap::Parser;
use serde_json::Value;
use std::path::PathBuf;

/// Kills, stops and cuts off a real cluster and compares its tables with an undisturbed run's
#[derive(Debug, Parser)]
#[command(name = "ablate-chaos", version)]
struct Args {
    /// Rounds, on SQLite and PostgreSQL in turn
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// The first round: a round's faults follow from its number
    #[arg(long, default_value_t = 0)]
    from: u32,
    /// Texts of the task: more make a longer sweep
    #[arg(long, default_value_t = 24)]
    texts: usize,
    /// Where the figures go
    #[arg(long, default_value = "target/proof/chaos.json")]
    json: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::Builder::new().prefix("ablate-chaos-").tempdir()?;
    let truth = Truth::of_minilm(folder.path(), args.texts)?;
    let server = Server::start(true);
    if let Some(parent) = args.json.parent() {
        std::fs::create_dir_all(parent)?;
    }
    println!(
        "{:>5} {:<20} {:<9} {:>6} {:>8} {:>8} {:>7} {:>5} {:>7}  identical",
        "round", "fault", "store", "faults", "chunks", "computed", "expired", "late", "s"
    );
    let mut rows: Vec<Value> = Vec::new();
    for round in args.from..args.from + args.rounds {
        let store = if round % 2 == 0 { Store::Sqlite } else { Store::Postgres };
        let mut kinds =
            Fault::ALL.iter().filter(|f| store == Store::Sqlite || **f != Fault::FillDisk).cycle();
        let Some(&fault) = kinds.nth(round as usize / 2) else { continue };
        let row = truth.round(round, fault, store, Some(&server));
        let row = match row {
            Ok(row) => row,
            Err(e) => {
                // Kept to be looked at.
                println!("kept: {}", folder.keep().display());
                return Err(e);
            }
        };
        println!(
            "{round:>5} {:<20} {:<9} {:>6} {:>8} {:>8} {:>7} {:>5} {:>7.1}  {}",
            fault.name(),
            store.name(),
            row["faults"],
            row["accepted"],
            row["computed"],
            row["leases_expired"],
            row["late_results"],
            row["seconds"].as_f64().unwrap_or(0.0),
            row["identical"]
        );
        rows.push(row);
        std::fs::write(&args.json, serde_json::to_string_pretty(&rows)?)?;
    }
    let differing = rows.iter().filter(|r| r["identical"] != true).count();
    println!("{} rounds, {differing} with other tables; written: {}", rows.len(), args.json.display());
    if differing > 0 {
        println!("kept: {}", folder.keep().display());
    }
    ensure!(differing == 0, "{differing} rounds gave other tables");
    outlasted(&rows)
}
