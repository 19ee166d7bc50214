//! The rows of the benchmark as text: a line each while it runs, a table at its end.

use ablate_worker::device::LIBTORCH;
use serde_json::Value;
use std::fmt::Write;
use std::process::Command;

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or("?")
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

/// A row as a line.
pub fn line(row: &Value) -> String {
    format!(
        "{:<12} {:<7} {:>2} x {:<4} {:<7} {:<5} {:>9.2}/s  {:<16} {:<5} {:>8.2}/s  {:>6.2} x  diff {:.1e}  {:>5.1} % of {:.0} GFLOP/s",
        text(row, "case"),
        text(row, "model"),
        row["rows"],
        row["tokens"],
        text(row, "sweep"),
        text(row, "dtype"),
        number(row, "subsets_per_s"),
        text(row, "peer"),
        text(row, "peer_dtype"),
        number(row, "peer_subsets_per_s"),
        number(row, "ratio"),
        number(row, "max_abs_diff"),
        100.0 * number(row, "flop_share_of_peak"),
        number(row, "peak_gflops")
    )
}

fn said(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

/// Model of the processor, cores, date and commit.
fn machine(threads: i32) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ':', ' ']);
    let cores = info.lines().filter(|l| l.starts_with("processor")).count();
    let units: Vec<&str> = ["avx512f", "amx_bf16"].into_iter().filter(|u| info.contains(u)).collect();
    format!(
        "{model}, {cores} cores ({}), {threads} threads for everybody, libtorch {LIBTORCH}; {}, commit {}",
        units.join(", "),
        said("date", &["-u", "+%F"]),
        said("git", &["rev-parse", "--short", "HEAD"])
    )
}

/// All rows as Markdown.
pub fn markdown(rows: &[Value], threads: i32) -> String {
    let mut out = format!("{}\n\n", machine(threads));
    out += "| model, task | sequences | sweep | dtype | Ablate, subsets/s | peer | its dtype | subsets/s | ratio | largest difference | share of peak | GFLOP/s | MB | its MB |\n";
    out += "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let _ = writeln!(
            out,
            "| {}, {} | {} × {} | {} | {} | {:.2} | {} | {} | {:.2} | **{:.2} ×** | {:.1e} | {:.0} % of {:.0} | {:.0} | {:.0} | {:.0} |",
            text(row, "model"),
            text(row, "task"),
            row["rows"],
            row["tokens"],
            text(row, "sweep"),
            text(row, "dtype"),
            number(row, "subsets_per_s"),
            text(row, "peer"),
            text(row, "peer_dtype"),
            number(row, "peer_subsets_per_s"),
            number(row, "ratio"),
            number(row, "max_abs_diff"),
            100.0 * number(row, "flop_share_of_peak"),
            number(row, "peak_gflops"),
            number(row, "gflops"),
            number(row, "peak_mb"),
            number(row, "peer_peak_mb")
        );
    }
    out
}
