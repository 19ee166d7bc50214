//! Arguments.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Finds out, by intervention, which attention heads of a transformer do the work.
#[derive(Debug, Parser)]
#[command(
    name = "ablate",
    version,
    after_help = "Start with `ablate plan SPEC` (nothing is run), then `ablate run SPEC`.\nExit codes: 0 done, 1 failed, 2 wrong usage or spec, 3 finished with quarantined shards, 130 interrupted and resumable."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

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
    /// Follow an experiment until it ends
    Watch(OneArgs),
    /// Lease nothing more of an experiment until it is resumed
    Pause(OneArgs),
    /// Go on with a paused experiment
    Resume(OneArgs),
    /// End an experiment; what was computed stays
    Cancel(OneArgs),
    /// Try quarantined chunks again
    Retry(OneArgs),
    /// List the connected workers
    Workers(ClientArgs),
    /// Write the tables of an experiment
    Export(ExportArgs),
    /// Write the report of an experiment
    Report(ReportArgs),
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
    after_help = "Examples:\n  ablate run sweep.toml\n  ablate run sweep.toml --out runs/first --device cpu,cpu\n  ablate run sweep.toml --device cuda:0,cuda:1\n\nState lies in the output folder. After Ctrl-C, a crash or a power cut the same command goes on where it stopped."
)]
pub struct RunArgs {
    /// The experiment (TOML)
    pub spec: PathBuf,
    /// Folder for state, tables and report [default: runs/NAME]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Devices of each worker, one lane each: cpu, "cpu,cpu", "cuda:0,cuda:1" or auto
    #[arg(long, env = "ABLATE_DEVICE", default_value = "auto")]
    pub device: String,
    /// Worker processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// Threads per lane [default: cores / (workers × lanes)]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Fail if there is nothing to resume
    #[arg(long)]
    pub resume: bool,
    /// Progress and summary as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
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
    after_help = "Example:\n  ablate serve --store sqlite://state.db\n  ablate-worker --coordinator http://127.0.0.1:7650"
)]
pub struct ServeArgs {
    /// Settings as TOML: listen, store, output
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:7650]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Where state is kept: sqlite://PATH [default: sqlite://ablate.db]
    #[arg(long)]
    pub store: Option<String>,
    /// Address of the web dashboard
    #[arg(long)]
    pub http: Option<SocketAddr>,
    /// Folder for the tables of ended experiments [default: runs]
    #[arg(long)]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The coordinator
    #[arg(long, env = "ABLATE_COORDINATOR", default_value = "http://127.0.0.1:7650")]
    pub coordinator: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
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
    /// File to write [default: report.html in the experiment's folder]
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}
