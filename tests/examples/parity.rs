//! The end of `make parity`: the rows that the tests appended (`ablate_tests::proof`) as one table, and as
//! target/proof/parity.json. Exit code 1 where a row isn't ok, or there is none.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a table")]

use ablate_tests::proof::ROWS;
use ablate_tests::root;
use serde_json::Value;
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = root().join("target/proof");
    let text = std::fs::read_to_string(folder.join(ROWS)).unwrap_or_default();
    let mut rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.sort_by_key(|r| (text(r, "model"), text(r, "check")));
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "{:<22} {:<58} {:>6} {:>9} {:>9} {:>9}",
        "model", "check", "cases", "abs diff", "rel diff", "limit"
    );
    for row in &rows {
        println!(
            "{:<22} {:<58} {:>6} {:>9.1e} {:>9.1e} {:>9.1e}  {}",
            text(row, "model"),
            text(row, "check"),
            row["cases"],
            number(row, "max_abs_diff"),
            number(row, "max_rel_diff"),
            number(row, "limit"),
            if row["ok"] == true { "ok" } else { "NOT OK" }
        );
    }
    std::fs::write(folder.join("parity.json"), serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
    let failed = rows.iter().filter(|r| r["ok"] != true).count();
    println!("{} rows, {failed} not ok; target/proof/parity.json", rows.len());
    if rows.is_empty() || failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
