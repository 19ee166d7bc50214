//! Lanes: one OS thread per device, which runs one chunk at a time; and the boundary to the engine.
#![expect(
    clippy::disallowed_methods,
    reason = "these lanes are real threads, outside of the runtime; simulations have lanes of their own"
)]

use ablate_common::plan::Plan;
use ablate_common::scores::ChunkScores;
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Executors that a lane keeps: those of the experiments it worked on last.
const KEPT_EXECUTORS: usize = 2;

/// One device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The processors.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
}

/// A lane's device.
#[derive(Debug, Clone)]
pub struct LaneDevice {
    /// Number of the lane within its process, from 0.
    pub lane: u32,
    /// The device.
    pub device: Named,
    /// Its name: "cpu", "cuda:0".
    pub name: String,
    /// Device model, driver, libtorch and threads: what must be equal for equal bits.
    pub class: String,
    /// CPU threads of the lane.
    pub threads: usize,
}

/// Runs chunks of one experiment on one lane.
pub trait Executor: Send {
    /// Scores of the chunk's subsets. Looks at `stop` now and then and gives up with
    /// [`ExecError::Stopped`] once it is set.
    ///
    /// # Errors
    /// As [`ExecError`] says.
    fn run_chunk(
        &mut self,
        sweep: u32,
        round: u32,
        list: &[UnitIx],
        chunk: u32,
        stop: &AtomicBool,
    ) -> Result<ChunkScores, ExecError>;
}

/// What a lane reports while it opens an experiment: step, done, total.
pub type Progress<'a> = &'a dyn Fn(&str, u64, u64);

/// Makes executors.
pub trait OpenExperiment: Send + Sync {
    /// Loads the model and makes ready for chunks. Called on the lane's thread, and what it returns never
    /// leaves that thread.
    ///
    /// # Errors
    /// As [`ExecError`] says.
    fn open(
        &self,
        lane: &LaneDevice,
        experiment: &Experiment,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Executor>, ExecError>;
}

/// Bytes for people.
fn bytes(n: u64) -> String {
    if n < 1 << 20 { format!("{n} bytes") } else { format!("{:.1} MiB", n as f64 / f64::from(1 << 20)) }
}

/// Why a chunk was not computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExecError {
    /// Told to stop.
    #[error("stopped")]
    Stopped,
    /// The model is not there or cannot be read.
    #[error("the model {} is missing or unreadable: {detail}", path.display())]
    ModelMissing {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The model's bytes are not those the experiment was planned with.
    #[error("the model differs: the experiment was planned with {expected}, here is {found}")]
    ModelDiffers {
        /// Hash in the plan.
        expected: String,
        /// Hash of what lies here.
        found: String,
    },
    /// The device's free memory can't hold the weights and a chunk of the plan: nothing was begun.
    #[error(
        "the experiment doesn't fit on {device}: its weights and a chunk of its largest batch need {}, and {} are free; \
         lower max_tokens or examples, take a smaller number format (dtype) or a smaller model, run fewer lanes, raise --memory where \
         that is what limits, or use a device with more memory",
        bytes(*needed), bytes(*free)
    )]
    DoesNotFit {
        /// The lane's device.
        device: String,
        /// Bytes that are needed at least.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The device's memory does not hold the work.
    #[error("out of memory: {detail}")]
    OutOfMemory {
        /// What libtorch said.
        detail: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Fitted constants, by ablation: what its fit stored of all heads.
pub type Constants = BTreeMap<u32, ChunkScores>;

/// An experiment as a lane needs it.
#[derive(Debug)]
pub struct Experiment {
    /// Its id.
    pub id: String,
    /// The recorded plan.
    pub plan: Arc<Plan>,
    /// The tasks' data, in the plan's order.
    pub prepared: Arc<Vec<Prepared>>,
    /// Constants of its fits that are through.
    pub constants: Arc<Constants>,
    /// Where the model lies on this machine.
    pub model: PathBuf,
}

/// One chunk to run.
pub struct Job {
    /// The experiment.
    pub experiment: Arc<Experiment>,
    /// Sweep within the plan.
    pub sweep: u32,
    /// Round within the sweep.
    pub round: u32,
    /// Input of the round.
    pub list: Arc<[UnitIx]>,
    /// Chunk within the round.
    pub chunk: u32,
    /// Set to give the chunk up.
    pub stop: Arc<AtomicBool>,
}

/// What came of a [`Job`].
pub struct Done {
    /// The lane.
    pub lane: u32,
    /// The chunk's scores, encoded.
    pub result: Result<Vec<u8>, ExecError>,
    /// Time the lane worked on the chunk, without opening the experiment.
    pub busy: Duration,
    /// Time the lane waited for the chunk since the one before.
    pub waited: Duration,
}

/// Hands a [`Done`] back; false where nobody listens any more.
pub type Report = Box<dyn Fn(Done) -> bool + Send>;

/// Takes a lane's jobs, one at a time; false where the lane is gone.
pub type Jobs = Box<dyn Fn(Job) -> bool + Send>;
/// Starts lanes.
pub type Starter = Arc<dyn Fn(&LaneDevice, Report) -> std::io::Result<Jobs> + Send + Sync>;

/// Lanes that are threads, with executors from `opener`.
pub fn threads(opener: Arc<dyn OpenExperiment>) -> Starter {
    Arc::new(move |device, report| {
        let jobs = start(device.clone(), opener.clone(), report)?;
        Ok(Box::new(move |job| jobs.send(job).is_ok()))
    })
}

/// Starts a lane's thread. It ends when the sender of its jobs is dropped.
///
/// # Errors
/// Where the system gives no thread.
fn start(
    device: LaneDevice,
    opener: Arc<dyn OpenExperiment>,
    report: Report,
) -> std::io::Result<mpsc::Sender<Job>> {
    let (jobs, inbox) = mpsc::channel::<Job>();
    std::thread::Builder::new().name(format!("lane-{}", device.lane)).spawn(move || {
        let mut kept: Vec<(Arc<Experiment>, Box<dyn Executor>)> = Vec::new();
        let mut ended: Option<Instant> = None;
        while let Ok(job) = inbox.recv() {
            let waited = ended.map_or(Duration::ZERO, |at| at.elapsed());
            let mut busy = Duration::ZERO;
            let run = || run(&device, opener.as_ref(), &mut kept, &job, &mut busy);
            let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
                // What a panic leaves behind is not to be trusted.
                kept.retain(|(e, _)| e.id != job.experiment.id);
                Err(ExecError::Failed(format!("the engine panicked: {}", panic_text(panic.as_ref()))))
            });
            ended = Some(Instant::now());
            if !report(Done { lane: device.lane, result, busy, waited }) {
                break;
            }
        }
    })?;
    Ok(jobs)
}

fn run(
    device: &LaneDevice,
    opener: &dyn OpenExperiment,
    kept: &mut Vec<(Arc<Experiment>, Box<dyn Executor>)>,
    job: &Job,
    busy: &mut Duration,
) -> Result<Vec<u8>, ExecError> {
    let at = match kept.iter().position(|(e, _)| Arc::ptr_eq(e, &job.experiment)) {
        Some(at) => at,
        None => {
            // The old one goes first: two models need not fit.
            kept.retain(|(e, _)| e.id != job.experiment.id);
            while kept.len() >= KEPT_EXECUTORS {
                kept.remove(0);
            }
            let e = &job.experiment;
            tracing::info!(lane = device.lane, device = device.name, experiment = e.id, model = %e.model.display(), "opening");
            let progress = Logged::new(device.lane);
            let show = |step: &str, done: u64, total: u64| progress.show(step, done, total);
            let executor = match opener.open(device, e, &show) {
                // Beside other experiments' states there may be too little room for what fits alone.
                Err(ExecError::DoesNotFit { .. } | ExecError::OutOfMemory { .. }) if !kept.is_empty() => {
                    kept.clear();
                    opener.open(device, e, &show)
                }
                opened => opened,
            }?;
            kept.push((e.clone(), executor));
            kept.len() - 1
        }
    };
    // The latest used is the last.
    let mut entry = kept.remove(at);
    let from = Instant::now();
    let result = entry.1.run_chunk(job.sweep, job.round, &job.list, job.chunk, &job.stop);
    kept.push(entry);
    let bytes = result.map(|scores| scores.encode());
    *busy = from.elapsed();
    bytes
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Progress as log lines, at most one a second and step.
struct Logged {
    lane: u32,
    begun: Instant,
    last: std::cell::Cell<Option<Instant>>,
}

impl Logged {
    fn new(lane: u32) -> Self {
        Self { lane, begun: Instant::now(), last: std::cell::Cell::new(None) }
    }

    fn show(&self, step: &str, done: u64, total: u64) {
        let now = Instant::now();
        let due = self.last.get().is_none_or(|l| now - l >= Duration::from_secs(1));
        if done < total && !due {
            return;
        }
        self.last.set((done < total).then_some(now));
        let seconds = (now - self.begun).as_secs_f64();
        let left = if done > 0 { seconds * (total.saturating_sub(done)) as f64 / done as f64 } else { 0.0 };
        tracing::info!(
            lane = self.lane,
            done,
            total,
            seconds = format!("{seconds:.1}"),
            left_s = format!("{left:.0}"),
            "{step}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A device that holds one experiment of the first two, and never the third.
    #[derive(Default)]
    struct Narrow {
        open: Arc<AtomicUsize>,
    }

    struct Opened(Arc<AtomicUsize>);

    impl Drop for Opened {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Executor for Opened {
        fn run_chunk(
            &mut self,
            _: u32,
            _: u32,
            _: &[UnitIx],
            _: u32,
            _: &AtomicBool,
        ) -> Result<ChunkScores, ExecError> {
            Err(ExecError::Stopped)
        }
    }

    impl OpenExperiment for Narrow {
        fn open(
            &self,
            lane: &LaneDevice,
            experiment: &Experiment,
            _: Progress<'_>,
        ) -> Result<Box<dyn Executor>, ExecError> {
            if self.open.load(Ordering::SeqCst) > 0 || experiment.id == "third" {
                return Err(ExecError::DoesNotFit { device: lane.name.clone(), needed: 2, free: 1 });
            }
            self.open.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Opened(self.open.clone())))
        }
    }

    #[test]
    fn an_experiment_that_fits_alone_makes_room_for_itself_and_one_that_never_fits_is_refused() {
        let (opener, mut kept) = (Narrow::default(), Vec::new());
        let device =
            LaneDevice { lane: 0, device: Named::Cpu, name: "cpu".into(), class: String::new(), threads: 1 };
        let plan = Arc::new(crate::tests::plan());
        let mut worked = |id: &str| {
            let job = Job {
                experiment: Arc::new(Experiment {
                    id: id.into(),
                    plan: plan.clone(),
                    prepared: Arc::default(),
                    constants: Arc::default(),
                    model: PathBuf::new(),
                }),
                sweep: 0,
                round: 0,
                list: Arc::default(),
                chunk: 0,
                stop: Arc::default(),
            };
            run(&device, &opener, &mut kept, &job, &mut Duration::default()).unwrap_err()
        };
        assert_eq!([worked("first"), worked("second")], [ExecError::Stopped, ExecError::Stopped]);
        assert!(matches!(worked("third"), ExecError::DoesNotFit { .. }));
        assert_eq!(worked("first"), ExecError::Stopped);
    }
}
