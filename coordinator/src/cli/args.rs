//! Arguments.

use ablate_net::AccessArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Finds out, by intervention, which attention heads of a transformer do the work.
#[derive(Debug, Parser)]
#[command(
    name = "ablate",
    version,
    long_about = LONG,
    after_help = EXIT_CODES,
    after_long_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const LONG: &str = "\
Finds out, by intervention, which attention heads of a transformer do the work: every head is removed \
alone, every pair together, and heads one after another until most are gone; what that costs is measured \
on your tasks, example by example.

An experiment is a spec (TOML): a model, tasks, what replaces a removed head, and sweeps. `ablate run` does \
all of it on this machine. For many machines, `ablate serve` runs as the coordinator, `ablate-worker` on \
every machine computes, and `submit`, `watch` and the others speak to the coordinator.";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage or spec; 3 finished with quarantined chunks; 130 interrupted \
and resumable.";

const EXAMPLES: &str = "\
On one machine:
  ablate doctor                          is everything there?
  ablate plan sweep.toml                 what would be computed, and what it costs; runs nothing
  ablate run sweep.toml                  tables and report in runs/NAME; run again to resume
  ablate export runs/NAME --format csv

On many:
  ablate serve --store sqlite://state.db
  ablate-worker --coordinator http://127.0.0.1:7650
  ablate submit sweep.toml && ablate watch NAME
  ablate export NAME

A spec:
  name = \"first\"
  [model]
  source = \"models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf\"
  [[task]]
  name = \"ioi\"
  kind = \"ioi\"
  examples = 64
  [ablation]
  method = \"mean\"      # zero | mean | resample | optimal | scale
  unit = \"head\"        # head | kv_group | layer | set
  [[sweep]]
  kind = \"single\"

Exit codes: 0 done; 1 failed; 2 wrong usage or spec; 3 finished with quarantined chunks; 130 interrupted
and resumable. $ABLATE_LOG sets what is logged to stderr (off, error, warn, info, debug, trace).";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an experiment on this machine, to the end; run again to resume
    Run(RunArgs),
    /// Show what an experiment would compute and cost, without running it
    Plan(PlanArgs),
    /// Serve as the coordinator of a cluster
    Serve(ServeArgs),
    /// Hand an experiment to a coordinator
    Submit(SubmitArgs),
    /// List the experiments of a coordinator
    List(ClientArgs),
    /// Show the status of one experiment, or of all
    Status(MaybeOneArgs),
    /// Follow an experiment until it ends: on a full screen in a terminal, in lines elsewhere
    Watch(WatchArgs),
    /// Lease nothing more of an experiment until it is resumed
    Pause(OneArgs),
    /// Go on with a paused experiment
    Resume(OneArgs),
    /// End an experiment; what was computed stays
    Cancel(OneArgs),
    /// Go on with an experiment that failed or was cancelled, and try quarantined chunks and refusing workers again
    Retry(OneArgs),
    /// List the connected workers
    Workers(ClientArgs),
    /// Write the tables of an experiment
    Export(ExportArgs),
    /// Write the report of an experiment
    Report(ReportArgs),
    /// Compare runs: which heads' ranks are stable over seeds or data sets
    Compare(CompareArgs),
    /// Make, list and revoke the tokens by which callers of a coordinator are known
    Token(super::token::TokenArgs),
    /// Check libtorch, devices, the store and the disk, and say what to fix
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
#[command(
    long_about = "Runs an experiment on this machine, to the end: a coordinator in this process, and worker processes that it \
starts beside it. State, tables (Parquet), summary.json, run.json, report.html and the workers' logs lie in the output \
folder. After Ctrl-C, a crash or a power cut the same command goes on where it stopped; where all is done it prints the \
result again. A folder of another experiment is refused, naming what differs.",
    after_help = "Examples:\n  ablate run sweep.toml\n  ablate run sweep.toml --out runs/first --device cpu,cpu\n  ablate run sweep.toml --device cuda:0,cuda:1\n  ablate run sweep.toml --workers 2 --threads 1 --json\n\n$ABLATE_WORKER names another ablate-worker than the one beside ablate or on the path."
)]
pub struct RunArgs {
    /// The experiment (TOML)
    pub spec: PathBuf,
    /// Folder for state, tables and report [default: runs/NAME]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Devices of each worker, one lane each: cpu, "cpu,cpu", "cuda:0,cuda:1" or auto
    #[arg(long, env = "ABLATE_DEVICE", value_name = "LIST", default_value = "auto", value_parser = devices)]
    pub device: String,
    /// Worker processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Threads per lane [default: cores / (workers × lanes)]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Memory that each lane may use at most, for example 2GiB; `ablate plan` says what is needed [default: its share of what is free]
    #[arg(long, env = "ABLATE_MEMORY", value_name = "BYTES", value_parser = ablate_common::memory::parse)]
    pub memory: Option<u64>,
    /// Share of the chunks that a second worker computes again, to be compared: 0.01 is one in a hundred
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub audit: f64,
    /// Show the run in a browser, at this address of this machine, for example 127.0.0.1:7651
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Fail if there is nothing to resume
    #[arg(long)]
    pub resume: bool,
    /// Progress and summary as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// Threads per lane: as asked for, else the cores shared out over the workers' lanes. None where one
    /// worker finds its devices itself: it shares them out better.
    pub fn threads_per_lane(&self) -> Option<u32> {
        if self.threads.is_some() || (self.device == AUTO && self.workers == 1) {
            return self.threads;
        }
        let lanes = u32::try_from(self.device.split(',').count()).unwrap_or(u32::MAX);
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        Some((cores / self.workers.saturating_mul(lanes).max(1)).max(1))
    }

    /// The command that goes on with this run.
    pub fn again(&self) -> String {
        let mut line = format!("ablate run {}", quoted(&self.spec.to_string_lossy()));
        // Writing to a string doesn't fail.
        if let Some(out) = &self.out {
            let _ = write!(line, " --out {}", quoted(&out.to_string_lossy()));
        }
        if self.device != AUTO {
            let _ = write!(line, " --device {}", self.device);
        }
        if self.workers != 1 {
            let _ = write!(line, " --workers {}", self.workers);
        }
        if let Some(threads) = self.threads {
            let _ = write!(line, " --threads {threads}");
        }
        if let Some(memory) = self.memory {
            let _ = write!(line, " --memory {memory}");
        }
        if self.audit > 0.0 {
            let _ = write!(line, " --audit {}", self.audit);
        }
        if let Some(http) = self.http {
            let _ = write!(line, " --http {http}");
        }
        line
    }
}

const AUTO: &str = "auto";

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Checks a list of devices by its form; whether they are there only the worker knows.
fn devices(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let number = |n: &str| !n.is_empty() && n.len() < 5 && n.bytes().all(|b| b.is_ascii_digit());
    let known = |p: &&str| matches!(*p, "cpu" | "cuda") || p.strip_prefix("cuda:").is_some_and(number);
    if parts == [AUTO] || parts.iter().all(known) {
        Ok(parts.join(","))
    } else {
        Err("give cpu, cuda:N, several with commas, or auto".to_owned())
    }
}

#[derive(Debug, Args)]
#[command(
    long_about = "Shows what an experiment would compute, without running it: its subsets and chunks, its estimated cost, memory and \
time, and a few examples as the model will see them. Everything that can be wrong with the spec, the model files and the data \
is found here too.",
    after_help = "Examples:\n  ablate plan sweep.toml\n  ablate plan sweep.toml --show 5\n  ablate plan sweep.toml --json"
)]
pub struct PlanArgs {
    /// The experiment (TOML)
    pub spec: PathBuf,
    /// Examples shown of each task
    #[arg(long, default_value_t = 2)]
    pub show: usize,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Serves as the coordinator of a cluster: takes experiments, hands their work to the workers that connect, keeps every \
result durably before it is acknowledged, and writes the tables when an experiment ends. Killed and started again on the \
same store, it goes on where it was. Several may be started on one PostgreSQL database: one leads, the others stand by and take \
over within seconds when it is gone.",
    after_help = "Examples:\n  ablate serve --store sqlite://state.db\n  ablate-worker --coordinator http://127.0.0.1:7650\n  ablate submit sweep.toml\n\n  export ABLATE_STORE=postgres://ablate@db.example/ablate PGPASSWORD=...\n  ablate serve --listen 127.0.0.1:7650 &\n  ablate serve --listen 127.0.0.1:7651 &\n  ablate-worker --coordinator http://127.0.0.1:7650,http://127.0.0.1:7651\n\nBeyond loopback:\n  ablate token create --role worker --name gpu-nodes     shown once; give it to workers in $ABLATE_TOKEN\n  \
ablate serve --listen 0.0.0.0:7650 --tls-cert cert.pem --tls-key key.pem --allow /data\n  \
ablate-worker --coordinator https://HOST:7650 --ca ca.pem --token-file token\n\n\
A config file has the same settings (listen, http, advertise, store, output, audit, lease, tls_cert, tls_key, client_ca, require_auth, allow, [limits]) as TOML; options win. Give a database's password in \
$PGPASSWORD, ~/.pgpass or the config file rather than on the command line, which every user of the machine can read."
)]
pub struct ServeArgs {
    /// Settings as TOML: listen, http, advertise, store, output, those of security, [limits]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:7650]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// URL where workers and clients reach this coordinator, for those that ask another [default: http://LISTEN, or https]
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Where state is kept: sqlite://PATH or postgres://USER@HOST:PORT/DATABASE [default: sqlite://ablate.db]
    #[arg(long, env = "ABLATE_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<String>,
    /// Share of the chunks that a second worker with the same kind of device computes again, to be compared [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub audit: Option<f64>,
    /// How long a worker keeps what it works on without being heard of, in seconds, from 1 to 3600: it renews at a third of
    /// it, and what a vanished worker held goes to others after five quarters of it [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = lease)]
    pub lease: Option<f64>,
    /// Address of the web dashboard, for example 127.0.0.1:7651; other machines' only with TLS [default: none]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Folder for the tables of ended experiments [default: runs]
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Certificate (PEM, with those that sign it) to speak TLS with
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub tls_key: Option<PathBuf>,
    /// Authority (PEM) of the certificates of workers and clients; they name roles as ablate://role/worker
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub client_ca: Option<PathBuf>,
    /// Want a token or certificate for every call on loopback too
    #[arg(long, help_heading = "Security")]
    pub require_auth: bool,
    /// Folder below which submitted specs may name files; several times [default: any folder where no identities are wanted,
    /// else none]
    #[arg(long, value_name = "DIR", help_heading = "Security")]
    pub allow: Vec<PathBuf>,
}

/// A number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

/// A lease that is no wish for trouble: shorter ones run out while nothing is wrong, longer ones keep a dead machine's work.
pub fn lease(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (1.0..=3600.0).contains(&s) => Ok(s),
        _ => Err("a lease is a number of seconds from 1 to 3600".to_owned()),
    }
}

/// A share in millionths.
pub fn millionths(share: f64) -> u32 {
    (share * 1e6).round() as u32
}

#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The coordinator; several with commas: the one that leads is asked
    #[arg(long, env = "ABLATE_COORDINATOR", value_name = "URL", default_value = "http://127.0.0.1:7650")]
    pub coordinator: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The experiment (TOML); its paths must exist on the coordinator's machine
    pub spec: PathBuf,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    /// Name, id, or a unique beginning of the id
    pub id: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Follows an experiment until it ends. In a terminal that is a full screen: progress, rates and time left of \
each sweep, workers, the heads' effects filling in, the pruning curve, and chunks that failed; keys pause, resume, cancel and \
retry (? lists them). Elsewhere, with --plain and with --json it is a line for each change. Without an experiment the \
screen begins with the list of them, and stays until it is left.",
    after_help = "Examples:\n  ablate watch sweep\n  ablate watch\n  ablate watch sweep --plain >> log\n\n$NO_COLOR=1 \
draws without colours.\n\nExit codes: 0 done; 1 failed or cancelled; 3 finished with quarantined chunks; 130 left before its end."
)]
pub struct WatchArgs {
    /// Name, id, or a unique beginning of the id [default: chosen on the screen]
    pub id: Option<String>,
    /// Lines in a terminal too
    #[arg(long)]
    pub plain: bool,
    /// Stay on the screen when the experiment has ended
    #[arg(long, conflicts_with = "plain")]
    pub stay: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct MaybeOneArgs {
    /// Name, id, or a unique beginning of the id
    pub id: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Formats of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    Parquet,
    Csv,
    Json,
}

impl TableFormat {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Output folder of `ablate run`, or an experiment of the coordinator
    pub what: String,
    /// Format of the tables
    #[arg(long, value_enum, default_value = "parquet")]
    pub format: TableFormat,
    /// Folder to write to [default: the experiment's own, or its name]
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Output folder of `ablate run`, or an experiment of the coordinator
    pub what: String,
    /// File to write [default: report.html in the experiment's folder, with its figures in figures/]
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Compares runs of several seeds or data sets on one model: how far every two of them rank the heads alike (Spearman, \
Kendall, and the first tenth of each, with 95 % intervals), and of every head its ranks, the agreement of its signs and its pooled delta. \
Scores are matched by task, method and unit; where no task is common and each run has one, those.",
    after_help = "Examples:\n  ablate compare runs/seed-0 runs/seed-1 runs/seed-2\n  ablate compare runs/wiki runs/news --json\n  ablate compare runs/a runs/b --out stable.csv"
)]
pub struct CompareArgs {
    /// Output folders of `ablate run`, or of `ablate export`
    #[arg(required = true, num_args = 2.., value_name = "DIR")]
    pub runs: Vec<PathBuf>,
    /// File to write the table of heads to: its name ends in .parquet, .csv or .json
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Heads shown of each score
    #[arg(long, default_value_t = 10)]
    pub show: usize,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Store to look at, as for `ablate serve`; nothing is written to it
    #[arg(long, env = "ABLATE_STORE", hide_env_values = true, value_name = "URL")]
    pub store: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use clap::CommandFactory;

    fn run(line: &str) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Run(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn devices_are_checked_by_form() {
        for good in ["auto", "cpu", "cpu,cpu", "cuda:0,cuda:11", "cuda"] {
            assert_eq!(devices(good).unwrap(), good);
        }
        assert_eq!(devices("cpu, cuda:1").unwrap(), "cpu,cuda:1");
        for bad in ["", "gpu", "cuda:", "cuda:x", "cpu,,cpu", "auto,cpu"] {
            assert!(devices(bad).is_err(), "{bad}");
        }
        assert_eq!(run("ablate run x.toml --device tpu").unwrap_err().exit_code(), 2);
        assert_eq!(run("ablate run x.toml --workers 0").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn threads_are_shared_out_and_the_command_to_go_on_has_all_that_matters() {
        let args = run("ablate run x.toml --device cpu,cpu --workers 128").unwrap();
        assert_eq!(args.threads_per_lane(), Some(1));
        assert_eq!(args.again(), "ablate run x.toml --device cpu,cpu --workers 128");
        let mut args = run("ablate run x.toml --resume --device auto").unwrap();
        assert_eq!((args.threads_per_lane(), args.again()), (None, "ablate run x.toml".to_owned()));
        args.threads = Some(3);
        args.out = Some("my runs/it's".into());
        assert_eq!(args.threads_per_lane(), Some(3));
        assert_eq!(args.again(), "ablate run x.toml --out 'my runs/it'\\''s' --threads 3");
    }
}
