//! `make simulate`: many seeds, and every known bug; a table, and the same as JSON under `target/proof`.
//!
//! `simulate SEEDS` runs seeds 0 to SEEDS, and looks for the bugs. `simulate --seed N` replays one, line by line.

use ablate_simulation::{Options, Outcome, Profile, mutations, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds among which each bug must be found.
const FOR_BUGS: u64 = 400;
/// Failures that are printed.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<u64>().ok());
    match (args.first().map(String::as_str), number(0), number(1)) {
        (Some("--seed"), _, Some(seed)) => replay(seed),
        (_, Some(seeds), _) if seeds > 0 => prove(seeds),
        _ => {
            eprintln!("simulate: give a number of seeds, or --seed N to replay one");
            ExitCode::from(2)
        }
    }
}

fn replay(seed: u64) -> ExitCode {
    let outcome = run(seed, Options { lines: true, ..Options::default() });
    outcome.lines.iter().for_each(|l| println!("{l}"));
    println!(
        "seed {seed} {:?}: {} simulated ms, trace {}, faults {:?}",
        outcome.profile, outcome.ms, outcome.trace, outcome.faults
    );
    for v in &outcome.violations {
        println!("FAILED {v}");
    }
    ExitCode::from(u8::from(!outcome.violations.is_empty()))
}

#[derive(Default)]
struct Sums {
    done: u64,
    failed: Vec<(u64, Vec<String>)>,
    faults: BTreeMap<&'static str, u64>,
    profiles: BTreeMap<String, u64>,
    simulated_ms: u64,
    computed: u64,
    planned: u64,
}

impl Sums {
    fn add(&mut self, o: Outcome) {
        self.done += 1;
        self.simulated_ms += o.ms;
        self.computed += o.computed;
        self.planned += o.planned;
        *self.profiles.entry(name(o.profile).to_owned()).or_default() += 1;
        o.faults.iter().for_each(|(k, n)| *self.faults.entry(k).or_default() += n);
        if !o.violations.is_empty() {
            eprintln!("seed {} failed: {}; replay: make simulate SEED={0}", o.seed, o.violations.join("; "));
            self.failed.push((o.seed, o.violations));
        }
    }
}

fn name(profile: Profile) -> &'static str {
    match profile {
        Profile::Undisturbed => "undisturbed",
        Profile::Storm => "storm",
        Profile::Leases => "leases",
        Profile::Takeover => "takeover",
    }
}

fn prove(seeds: u64) -> ExitCode {
    let began = Instant::now();
    let (next, sums) = (AtomicU64::new(0), Mutex::new(Sums::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = run(seed, Options::default());
                    let Ok(mut sums) = sums.lock() else { return };
                    sums.add(outcome);
                    if sums.done.is_multiple_of(500) {
                        let left =
                            began.elapsed().as_secs_f64() / sums.done as f64 * (seeds - sums.done) as f64;
                        eprintln!(
                            "{} of {seeds} seeds, {} failed, {left:.0} s left",
                            sums.done,
                            sums.failed.len()
                        );
                    }
                }
            });
        }
    });
    let Ok(mut sums) = sums.into_inner() else { return ExitCode::FAILURE };
    sums.failed.sort();
    let seconds = began.elapsed().as_secs_f64();
    let found = mutations::find(FOR_BUGS);
    let caught = found.iter().filter(|f| f.seed.is_some()).count();
    show(seeds, &sums, seconds, &found);
    let row = serde_json::json!({
        "seeds": seeds,
        "failed": sums.failed.len(),
        "failed_seeds": sums.failed.iter().take(SHOWN).collect::<Vec<_>>(),
        "profiles": sums.profiles,
        "faults_by_kind": sums.faults,
        "mutations": found.len(),
        "mutations_caught": caught,
        "mutations_by_name": found.iter().map(|f| (f.name, serde_json::json!({"seed": f.seed, "found": f.what}))).collect::<BTreeMap<_, _>>(),
        "simulated_hours": sums.simulated_ms as f64 / 3.6e6,
        "chunks_computed": sums.computed,
        "chunks_planned": sums.planned,
        "seconds": seconds,
    });
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all("target/proof")?;
        std::fs::write("target/proof/simulate.json", serde_json::to_string_pretty(&[row])?)
    };
    if let Err(e) = write() {
        eprintln!("simulate: target/proof/simulate.json can't be written: {e}");
        return ExitCode::FAILURE;
    }
    println!("written to target/proof/simulate.json");
    ExitCode::from(u8::from(!sums.failed.is_empty() || caught < found.len()))
}

fn show(seeds: u64, sums: &Sums, seconds: f64, found: &[mutations::Found]) {
    println!(
        "{seeds} seeds, {} failed, in {seconds:.0} s: {:.1} simulated hours",
        sums.failed.len(),
        sums.simulated_ms as f64 / 3.6e6
    );
    println!("chunks computed {}, of which needed {}\n", sums.computed, sums.planned);
    println!("{:<46} times", "fault");
    sums.faults.iter().for_each(|(kind, n)| println!("{kind:<46} {n}"));
    println!("\n{:<46} found by", "known bug, put back");
    found.iter().for_each(|f| println!("{f}"));
    println!();
}
