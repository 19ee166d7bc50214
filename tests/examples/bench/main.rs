//! `make bench`: Ablate's engine against what researchers use today, on the same weights, tokens, subsets and
//! threads, with the numbers compared. Prints a table and writes target/proof/bench.json and bench.md; exit code 1 where numbers
//! aren't equal within the limits below, or where nothing was measured. Arguments: names of cases ("smollm2-64" …), whose rows go into
//! bench-part.json and bench-part.md; without any, all of them. With "alone" among them no peer is asked, and Ablate's own rates are
//! printed and not kept.
//!
//! Each case and number format runs in a process of its own, which is this program again ("child CASE FORMAT FILE"): so the
//! memory that is told is that of the case. Cases of a GPU run where there is one.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

mod cases;
mod least;
mod peers;
mod run;
mod shape;
mod table;

use ablate_common::head::HeadIx;
use ablate_common::spec::Dtype;
use ablate_common::task::{Prepared, TaskKind};
use ablate_tests::root;
use ablate_worker::cuda_runtime::free_memory;
use ablate_worker::device::Machine;
use cases::{Case, Source, cases};
use peers::{Peer, ask};
use run::{Ran, load, name_of};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, ExitCode};
use tch::Device;

/// Subsets of each sweep that a peer runs.
const PEER_SUBSETS: usize = 12;

/// Threads, for everybody: as many as the machine has cores.
fn threads() -> i32 {
    std::thread::available_parallelism().map_or(1, |n| i32::try_from(n.get()).unwrap_or(i32::MAX))
}

/// How far a score may be from another's, per scored token and relative to max(1, |it|). In f32 both sides round, by
/// other orders of summation: cosines are below 1, losses are means over tokens, and a logit difference is one number of SmolLM2, in
/// which plain hooks in f32 are 2.4e-4 off those in f64. A head ablated wrongly moves these numbers by 1e-2 and
/// more. bf16 has 8 bits: the limit is eight of its rounding errors of one operation, through 30 layers.
fn limit(dtype: Dtype, kind: TaskKind) -> f64 {
    match (dtype, kind) {
        (Dtype::Bf16 | Dtype::F16, _) => 8.0 / 256.0,
        (_, TaskKind::Similarity) => 1e-5,
        (_, TaskKind::LanguageModeling) => 2e-4,
        _ => 1e-3,
    }
}

/// Most memory this process has had, in MB.
fn own_peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// Largest differences of scores, for each scored token where a score sums them.
#[derive(Clone, Copy, Default)]
struct Difference {
    abs: f64,
    /// Relative to max(1, |theirs|).
    rel: f64,
}

impl Difference {
    fn see(mut self, prepared: &Prepared, ours: &[f64], theirs: &[f64]) -> Self {
        let larger = |a: f64, b: f64| if b.is_nan() { f64::NAN } else { a.max(b) };
        for (e, (a, b)) in prepared.examples.iter().zip(ours.iter().zip(theirs)) {
            let tokens = f64::from(prepared.scored_tokens(e).max(1));
            let off = (a - b).abs() / tokens;
            self.abs = larger(self.abs, off);
            self.rel = larger(self.rel, off / (b / tokens).abs().max(1.0));
        }
        self
    }
}

/// A few of each sweep's subsets, evenly spread: (sweep, subset).
fn picked(ran: &[Ran]) -> Vec<(usize, usize)> {
    let of = |(s, r): (usize, &Ran)| {
        let n = r.subsets.len();
        (0..PEER_SUBSETS).map(move |k| (s, (2 * k + 1) * n / (2 * PEER_SUBSETS)))
    };
    ran.iter().enumerate().flat_map(of).collect()
}

/// Subsets a second of passes that took so long, and its standard error.
fn rate(seconds: &[f64]) -> (f64, f64) {
    let n = seconds.len() as f64;
    let mean = seconds.iter().sum::<f64>() / n;
    let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (1.0 / mean, (variance / n).sqrt() / mean.powi(2))
}

/// Runs a case in one format, prints its rows, and gives them.
fn bench(case: &Case, dtype: Dtype, alone: bool, device: Device) -> Vec<Value> {
    let peers = case.formats.iter().find(|f| f.0 == dtype).map_or(&[][..], |f| f.1);
    let gpu_free = || if let Device::Cuda(index) = device { free_memory(index) } else { None };
    let free = gpu_free();
    let mut loaded = load(case, dtype, device);
    let ran = loaded.sweeps(matches!(case.source, Source::File { .. }));
    // libtorch keeps what it has used of a GPU's memory.
    let gpu_mb = free.zip(gpu_free()).map(|(before, after)| before.saturating_sub(after) as f64 / 1e6);
    let memory = own_peak_mb();
    let peaks = loaded.peaks();
    if alone {
        for r in &ran {
            let share = 100.0 * r.least.seconds(&peaks) / r.seconds;
            println!("{:14} {:4} {:7} {:8.2}/s {share:6.1} %", case.name, name_of(dtype), r.sweep, r.rate());
        }
        return Vec::new();
    }
    let picked = picked(&ran);
    let subsets: Vec<Vec<HeadIx>> = picked.iter().map(|&(s, i)| ran[s].subsets[i].clone()).collect();
    // What a narrow format is measured by: the same subsets by this engine in f32.
    let wide: Option<Vec<Vec<f64>>> = (dtype != Dtype::F32).then(|| {
        let (plan, prepared) = (loaded.plan.clone(), loaded.prepared.clone());
        drop(std::mem::replace(&mut loaded, load(case, Dtype::F32, device)));
        let scores = loaded.scores(&subsets);
        (loaded.plan, loaded.prepared) = (plan, prepared);
        scores
    });
    let on = if device == Device::Cpu { "cpu" } else { "cuda:0" };
    let mut answers: Vec<((&str, &str), Peer)> = Vec::new();
    for &peer in peers {
        eprintln!("{} {}: asking {} in {}", case.name, name_of(dtype), peer.0, peer.1);
        match ask(case, &loaded, peer, (threads(), on), &subsets) {
            Ok(answer) => answers.push((peer, answer)),
            // Peers need a torch with CUDA in their own environment.
            Err(e) if device != Device::Cpu => eprintln!("{}: no {} on the GPU: {e}", case.name, peer.0),
            Err(e) => panic!("{}: {e}", peer.0),
        }
    }
    let prepared = &loaded.prepared;
    let tokens = prepared.items.iter().map(|i| i.tokens.len()).max().unwrap_or(0);
    let mut rows = Vec::new();
    let none: &[((&str, &str), Peer)] = &answers;
    let each: Vec<Option<&((&str, &str), Peer)>> =
        if none.is_empty() { vec![None] } else { none.iter().map(Some).collect() };
    for answer in each {
        for (s, r) in ran.iter().enumerate() {
            let mine: Vec<usize> = (0..picked.len()).filter(|&k| picked[k].0 == s).collect();
            let ours = |k: usize| r.scores[picked[k].1].as_slice();
            let over = |other: &dyn Fn(usize) -> (Vec<f64>, Vec<f64>)| {
                mine.iter().fold(Difference::default(), |d, &k| {
                    let (a, b) = other(k);
                    d.see(prepared, &a, &b)
                })
            };
            let own = wide.as_ref().map(|w| over(&|k| (ours(k).to_vec(), w[k].clone())));
            let apart = answer.map(|(_, a)| over(&|k| (ours(k).to_vec(), a.columns[k].clone())));
            // The peer's own way from f32 to this format, where it was asked for both.
            let theirs = answer.and_then(|(who, a)| {
                let f32s = answers.iter().find(|(p, _)| *p == (who.0, "f32")).filter(|_| who.1 != "f32")?;
                Some(over(&|k| (a.columns[k].clone(), f32s.1.columns[k].clone())))
            });
            let limit = limit(dtype, prepared.kind);
            // Two narrow formats are compared by way of f32 each.
            let comparable = answer.is_none_or(|(who, _)| who.1 != name_of(dtype) || dtype == Dtype::F32);
            let ok = own.is_none_or(|d| d.rel <= limit)
                && apart.filter(|_| comparable).is_none_or(|d| d.rel <= limit)
                && (own.is_some() || apart.is_some());
            let rate = answer.map(|(_, a)| rate(&mine.iter().map(|&k| a.seconds[k]).collect::<Vec<_>>()));
            let seconds = r.least.seconds(&peaks);
            let row = json!({"case": case.name, "model": case.model, "task": case.task, "rows": prepared.items.len(),
                "tokens": tokens, "sweep": r.sweep, "subsets": r.subsets.len(), "dtype": name_of(dtype), "device": on,
                "peer": answer.map(|(p, _)| p.0), "peer_dtype": answer.map(|(p, _)| p.1), "threads": threads(),
                "subsets_per_s": r.rate(), "peer_subsets_per_s": rate.map(|r| r.0), "peer_error": rate.map(|r| r.1),
                "ratio": rate.map(|theirs| r.rate() / theirs.0),
                "max_abs_diff": apart.map(|d| d.abs), "max_rel_diff": apart.map(|d| d.rel),
                "f32_diff": own.map(|d| d.abs), "f32_rel_diff": own.map(|d| d.rel),
                "peer_f32_diff": theirs.map(|d| d.abs), "limit": limit, "ok": ok,
                "flop_share_of_peak": seconds / r.seconds, "gflops": r.least.flops() / r.seconds / 1e9,
                "peak_gflops": r.least.flops() / seconds / 1e9, "peaks": peaks.told(), "peak_mb": memory,
                "gpu_mb": gpu_mb, "peer_peak_mb": answer.map(|(_, a)| a.peak_mb),
                "sweep_subsets": r.of, "sweep_hours": r.of as f64 / r.rate() / 3600.0});
            println!("{}", table::line(&row));
            rows.push(row);
        }
    }
    rows
}

/// One case in one format, in this process.
fn child(case: &str, format: &str, file: &Path, alone: bool, folder: &Path) {
    // Before any other call of libtorch.
    let machine = Machine::look();
    tch::set_num_threads(threads());
    let case = cases(folder).into_iter().find(|c| c.name == case).unwrap();
    let dtype = case.formats.iter().map(|f| f.0).find(|&d| name_of(d) == format).unwrap();
    let device = if case.gpu && !machine.gpus.is_empty() { Device::Cuda(0) } else { Device::Cpu };
    let rows = tch::no_grad(|| bench(&case, dtype, alone, device));
    std::fs::write(file, serde_json::to_vec(&rows).unwrap()).unwrap();
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let (alone, rest): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a == "alone");
    if let [word, case, format, file] = rest.as_slice()
        && word == "child"
    {
        child(case, format, Path::new(file), !alone.is_empty(), folder.path());
        return ExitCode::SUCCESS;
    }
    let (gpu, file) = (!Machine::look().gpus.is_empty(), folder.path().join("rows.json"));
    let wanted = |c: &Case| {
        if rest.is_empty() { !c.named && (gpu || !c.gpu) } else { rest.iter().any(|w| w == c.name) }
    };
    let (mut rows, mut fine): (Vec<Value>, bool) = (Vec::new(), true);
    let all = cases(folder.path());
    if let Some(unknown) = rest.iter().find(|w| all.iter().all(|c| c.name != w.as_str())) {
        let names: Vec<&str> = all.iter().map(|c| c.name).collect();
        eprintln!("error: there is no case {unknown}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    // Before anything is measured: the checkout may move on meanwhile.
    let machine = table::machine(threads());
    for case in all.iter().filter(|c| wanted(c)) {
        for (dtype, _) in case.formats {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["child", case.name, name_of(*dtype)]).arg(&file).args(&alone);
            if command.status().unwrap().success() {
                let more: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
                rows.extend(more);
            } else {
                eprintln!("{} in {} failed; see above", case.name, name_of(*dtype));
                fine = false;
            }
        }
    }
    if alone.is_empty() {
        let place = root().join("target/proof");
        std::fs::create_dir_all(&place).unwrap();
        // A part never takes the place of the whole, nor does nothing.
        let name = if rest.is_empty() && fine { "bench" } else { "bench-part" };
        if rows.is_empty() {
            eprintln!("error: nothing was measured");
            return ExitCode::FAILURE;
        }
        std::fs::write(place.join(format!("{name}.json")), serde_json::to_vec_pretty(&rows).unwrap())
            .unwrap();
        std::fs::write(place.join(format!("{name}.md")), table::markdown(&rows, &machine)).unwrap();
        println!("written: target/proof/{name}.json and {name}.md");
    }
    for row in rows.iter().filter(|r| r["ok"] != true) {
        eprintln!("NOT EQUAL: {}", table::line(row));
        fine = false;
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
