//! `ablate-worker`: one process per node, one lane per device.

use ablate_net::{Access, AccessArgs};
use ablate_worker::client::compute::Compute;
use ablate_worker::client::{self, Config, Outcome, lane, link, route::Route, spool};
use ablate_worker::cuda_runtime::CudaSide;
use ablate_worker::device::{self, DeviceList, Machine};
use ablate_worker::engine::TorchOpener;
use ablate_worker::memory::Free;
use clap::Parser;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// How long a worker whose model differs waits to be given another experiment's work before it ends.
const OTHER_WORK: Duration = Duration::from_secs(10);

/// Runs chunks of experiments for an Ablate coordinator, on every device it is given.
///
/// A worker keeps no state: start as many as there are machines, stop them whenever you like. It asks the
/// coordinator for work, reconnects for ever when the coordinator is away, and sends a result again until
/// the coordinator has stored it. SIGTERM (and Ctrl-C) finishes the chunk in work, hands it over and ends
/// with exit code 0; a second one ends at once, and only the chunk in work is computed again elsewhere.
#[derive(Parser)]
#[command(name = "ablate-worker", version, after_help = EXAMPLES)]
struct Args {
    /// The coordinator: https://HOST:PORT, or http:// on its own machine, as `ablate serve` prints it; several with commas: the one that leads is worked for
    #[arg(long, env = "ABLATE_COORDINATOR", value_name = "URL", required_unless_present = "doctor")]
    coordinator: Option<String>,

    /// Devices, one lane each: cpu, cuda:N, several with commas, or auto (every GPU, else the CPU)
    #[arg(long, env = "ABLATE_DEVICE", value_name = "LIST", default_value = "auto")]
    device: DeviceList,

    /// CPU threads of each lane [default: the cores shared out evenly]
    ///
    /// Threads are a part of the device class: results are equal bit for bit only among lanes with equal
    /// classes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Memory that each lane may use at most, for example 2GiB [default: its share of what is free on its device]
    ///
    /// No number depends on it. Base states of the model that don't fit beside the work are computed again for each chunk. A
    /// chunk's own rows aren't divided: an experiment whose largest chunk doesn't fit is refused; `ablate plan` says what it needs.
    #[arg(long, env = "ABLATE_MEMORY", value_name = "BYTES", value_parser = ablate_common::memory::parse)]
    memory: Option<u64>,

    /// Name shown by `ablate workers` [default: HOST:PID]
    #[arg(long)]
    name: Option<String>,

    /// Where to look for a model, by its file name, when the coordinator's path does not exist here
    #[arg(long, value_name = "DIR")]
    model_root: Option<PathBuf>,

    /// Newest version of the protocol to speak, for clusters that are upgraded bit by bit
    #[arg(long, value_name = "N", default_value_t = ablate_common::PROTOCOL_VERSION,
          value_parser = clap::value_parser!(u32).range(i64::from(ablate_common::OLDEST_PROTOCOL)..=i64::from(ablate_common::PROTOCOL_VERSION)))]
    protocol: u32,

    /// End as soon as standard input ends, and ignore Ctrl-C: how `ablate run` holds its workers
    #[arg(long)]
    stdin_leash: bool,

    /// Check libtorch and the devices, print what was found as JSON, and end with 0 (fine) or 1 (not)
    #[arg(long)]
    doctor: bool,

    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,

    #[command(flatten)]
    access: AccessArgs,
}

const EXAMPLES: &str = "\
Examples:
  ablate-worker --coordinator http://127.0.0.1:7650                 every GPU of this machine, or its CPU
  ablate-worker --coordinator http://127.0.0.1:7650 --device cuda:0,cuda:1
  ablate-worker --coordinator http://127.0.0.1:7650 --device cpu,cpu --threads 1
  ablate-worker --coordinator https://HOST:7650 --ca ca.pem --token-file worker.token
  ablate-worker --doctor

Environment: ABLATE_COORDINATOR, ABLATE_DEVICE, ABLATE_MEMORY, ABLATE_CA, ABLATE_CERT, ABLATE_KEY, ABLATE_TOKEN
and ABLATE_TOKEN_FILE as the options; ABLATE_LOG sets what is logged to
standard error (error, warn, info, debug, or by module: ablate_worker_client=debug).

Exit codes: 0 drained; 1 failed; 2 wrong usage, no such device, a coordinator or model that differs, or too
little memory.";

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(e) = log(args.log_json) {
        return fail(2, &e);
    }
    if args.stdin_leash
        && let Err(e) = leash()
    {
        return fail(1, &format!("no thread for the leash: {e}"));
    }
    let machine = Machine::look();
    if args.doctor {
        return doctor(&machine, &args);
    }
    if let CudaSide::Broken { path, detail } = &machine.cuda {
        tracing::warn!("{} did not load, so GPUs are not used: {detail}", path.display());
    }
    let lanes = match machine.lanes(&args.device, args.threads.map(usize::from)) {
        Ok(lanes) => lanes,
        Err(e) => return fail(2, &e.to_string()),
    };
    let route = Access::open(&args.access)
        .and_then(|access| Route::parse(args.coordinator.as_deref().unwrap_or_default(), access));
    let route = match route {
        Ok(route) => route,
        Err(e) => return fail(2, &e),
    };
    if let Some(root) = args.model_root.as_deref().filter(|r| !r.is_dir()) {
        return fail(2, &format!("--model-root {} is not a folder", root.display()));
    }
    set_threads(lanes.first().map_or(1, |l| l.threads));
    for lane in &lanes {
        tracing::info!(lane = lane.lane, device = lane.name, class = lane.class, "lane");
    }
    let free = Free::new(args.memory, lanes.iter().map(|l| device::torch(l.device)));
    let config = Config {
        route,
        name: args.name.unwrap_or_else(default_name),
        lanes,
        start: lane::threads(Arc::new(TorchOpener::with_memory(free))),
        protocol: args.protocol,
        engine: ablate_common::ENGINE_VERSION,
        dial: link::network(),
        limits: spool::LIMITS,
        compute: Compute::Pool,
        model_root: args.model_root,
        other_work_patience: if args.stdin_leash { Duration::ZERO } else { OTHER_WORK },
    };
    match work(config, args.stdin_leash) {
        Ok(Outcome::Drained(0)) => ExitCode::SUCCESS,
        Ok(Outcome::Drained(left)) => {
            tracing::warn!(
                left,
                "ended without an acknowledgement of every result; those chunks will be computed again"
            );
            ExitCode::SUCCESS
        }
        Ok(Outcome::Refused(why) | Outcome::DoesNotFit(why)) => fail(2, &why),
        Ok(Outcome::ModelDiffers(why)) => fail(
            2,
            &format!(
                "{why}; give this machine the experiment's model (--model-root), or plan the experiment anew with this one"
            ),
        ),
        Err(e) => fail(1, &e.to_string()),
    }
}

fn fail(code: u8, what: &str) -> ExitCode {
    eprintln!("ablate-worker: {what}");
    ExitCode::from(code)
}

fn log(json: bool) -> Result<(), String> {
    let filter = EnvFilter::new(ablate_common::logging::filter()?.as_deref().unwrap_or("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if json {
        lines.json().init()
    } else {
        lines.with_target(false).init()
    }
    Ok(())
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}:{}", if host.is_empty() { "localhost" } else { host }, std::process::id())
}

/// Once, before libtorch starts its pools.
fn set_threads(threads: usize) {
    tch::set_num_interop_threads(1);
    tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
}

fn doctor(machine: &Machine, args: &Args) -> ExitCode {
    let found = device::doctor(machine, &args.device, args.threads.map(usize::from));
    match serde_json::to_string_pretty(&found) {
        Ok(text) => println!("{text}"),
        Err(e) => return fail(1, &e.to_string()),
    }
    if found.ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Ends the process once standard input ends, whatever else it is doing.
fn leash() -> std::io::Result<()> {
    let watch = || {
        let mut buffer = [0u8; 256];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(n) if n > 0 => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        kill_self();
    };
    std::thread::Builder::new().name("leash".to_owned()).spawn(watch).map(drop)
}

/// Not `exit`: libtorch's destructors may hang while a lane is in the middle of a product.
fn kill_self() {
    if rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).is_err() {
        std::process::abort();
    }
}

fn work(config: Config, leashed: bool) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (drain_to, drain) = watch::channel(false);
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            let mut asked = false;
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => if leashed { continue },
                }
                if asked {
                    tracing::warn!("told twice: ending at once");
                    std::thread::spawn(|| {
                        std::thread::sleep(Duration::from_millis(500));
                        kill_self();
                    });
                    std::process::exit(130);
                }
                asked = true;
                if drain_to.send(true).is_err() {
                    return;
                }
            }
        });
        client::run(config, drain).await
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}
