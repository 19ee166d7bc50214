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

/// A number in a form, or a dash where there is none.
fn shown(row: &Value, key: &str, form: impl Fn(f64) -> String) -> String {
    row[key].as_f64().map_or_else(|| "–".to_owned(), form)
}

/// A row as a line.
pub fn line(row: &Value) -> String {
    let small = |key: &str| shown(row, key, |v| format!("{v:.1e}"));
    format!(
        "{:<14} {:>2} x {:<4} {:<7} {:<5} {:>9.2}/s  {:<16} {:<5} {:>8}/s  {:>6} x  diff {} to f32 {} ({}) {}  {:>5.1} % of {:.0} GFLOP/s",
        text(row, "case"),
        row["rows"],
        row["tokens"],
        text(row, "sweep"),
        text(row, "dtype"),
        number(row, "subsets_per_s"),
        text(row, "peer"),
        text(row, "peer_dtype"),
        shown(row, "peer_subsets_per_s", |v| format!("{v:.2}")),
        shown(row, "ratio", |v| format!("{v:.2}")),
        small("max_abs_diff"),
        small("f32_diff"),
        small("peer_f32_diff"),
        if row["ok"] == true { "ok" } else { "NOT OK" },
        100.0 * number(row, "flop_share_of_peak"),
        number(row, "peak_gflops")
    )
}

fn said(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

/// Model of the processor, cores, date and commit.
pub fn machine(threads: i32) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ':', ' ']);
    let cores = info.lines().filter(|l| l.starts_with("processor")).count();
    let units: Vec<&str> =
        ["avx512f", "avx512_bf16", "amx_bf16"].into_iter().filter(|u| info.contains(u)).collect();
    format!(
        "{model}, {cores} cores ({}), {threads} threads for everybody, libtorch {LIBTORCH}; {}, commit {}",
        units.join(", "),
        said("date", &["-u", "+%F"]),
        said("git", &["rev-parse", "--short", "HEAD"])
    )
}

/// All rows as Markdown.
pub fn markdown(rows: &[Value], machine: &str) -> String {
    let mut out = format!("{machine}\n\n");
    out += "| model, task | sequences | sweep | dtype | Ablate, subsets/s | peer | its dtype | subsets/s | ratio | largest difference | from f32 | peer from f32 | ok | share of peak | GFLOP/s | MB | its MB |\n";
    out += "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let small = |key: &str| shown(row, key, |v| format!("{v:.1e}"));
        let whole = |key: &str| shown(row, key, |v| format!("{v:.0}"));
        let _ = writeln!(
            out,
            "| {}, {} | {} × {} | {} | {} | {:.2} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} % of {:.0} | {:.0} | {} | {} |",
            text(row, "model"),
            text(row, "task"),
            row["rows"],
            row["tokens"],
            text(row, "sweep"),
            text(row, "dtype"),
            number(row, "subsets_per_s"),
            row["peer"].as_str().unwrap_or("–"),
            row["peer_dtype"].as_str().unwrap_or("–"),
            shown(row, "peer_subsets_per_s", |v| format!("{v:.2} ± {:.2}", number(row, "peer_error"))),
            shown(row, "ratio", |v| format!("**{v:.2} ×**")),
            small("max_abs_diff"),
            small("f32_diff"),
            small("peer_f32_diff"),
            if row["ok"] == true { "yes" } else { "**no**" },
            100.0 * number(row, "flop_share_of_peak"),
            number(row, "peak_gflops"),
            number(row, "gflops"),
            // On a GPU its own memory.
            if row["gpu_mb"].is_number() { whole("gpu_mb") } else { whole("peak_mb") },
            whole("peer_peak_mb")
        );
    }
    out += &peaks(rows);
    for row in rows.iter().filter(|r| r["device"] != "cpu" && r["sweep"] == "pairs") {
        let _ = writeln!(
            out,
            "\n{} on {}: all {} pairs would take {:.1} hours.",
            text(row, "model"),
            text(row, "device"),
            row["sweep_subsets"],
            number(row, "sweep_hours")
        );
    }
    out
}

/// The peaks that shares are of, a line for each case and format.
fn peaks(rows: &[Value]) -> String {
    let mut out = String::from(
        "\nPeaks of single products in GFLOP/s, each the best over several numbers of rows (behind it in brackets; of logits also of tokens):\n\n",
    );
    let mut seen = Vec::new();
    for row in rows {
        let key = (text(row, "case"), text(row, "dtype"));
        let (false, Some(all)) = (seen.contains(&key), row["peaks"].as_object()) else { continue };
        seen.push(key);
        let one = |(name, peak): (&String, &Value)| {
            let by = if name == "logits" { format!(" × {}", peak["columns"]) } else { String::new() };
            format!("{name} {:.0} ({}{by})", number(peak, "gflops"), peak["rows"])
        };
        let each: Vec<String> = all.iter().map(one).collect();
        let _ = writeln!(out, "- {} {}: {}", key.0, key.1, each.join(", "));
    }
    out
}
