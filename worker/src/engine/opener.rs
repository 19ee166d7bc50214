//! Opens experiments for lanes: verifies that the model's bytes are the plan's, loads them once per
//! device, and hands each lane an engine.

use super::{CACHE_BYTES, Engine, Error, SharedModel, arch};
use crate::device::torch;
use crate::lane::{ExecError, Executor, Experiment, LaneDevice, OpenExperiment};
use crate::load::Weights;
use crate::memory::{Free, room};
use ablate_common::memory::{self, CPU_SLICE_TOKENS, SLICE_TOKENS};
use ablate_common::model::inspect;
use ablate_common::plan::Plan;
use ablate_common::scores::ChunkScores;
use ablate_common::spec::Dtype;
use ablate_common::task::Prepared;
use ablate_common::units::UnitIx;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tch::{Device, Kind};

/// Opens experiments with libtorch. Lanes on one device share a model's weights.
#[derive(Debug, Default)]
pub struct TorchOpener {
    /// (weights' hash, device, number format) → the model, while a lane holds it.
    models: Mutex<HashMap<(String, String, Dtype), Weak<SharedModel>>>,
    /// Memory that lanes may use.
    free: Free,
}

impl TorchOpener {
    /// An opener that has loaded nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, whose lanes use what `free` allows.
    #[must_use]
    pub fn with_memory(free: Free) -> Self {
        Self { free, ..Self::default() }
    }

    /// Refuses what can't run here, and says what there is room for besides: bytes of base states. A chunk of the plan is computed in
    /// one piece or not at all: its products in other shapes could have other last bits.
    fn room(&self, lane: &LaneDevice, plan: &Plan, prepared: &[Prepared]) -> Result<u64, ExecError> {
        let device = torch(lane.device);
        let Some(share) = self.free.of(device) else { return Ok(CACHE_BYTES) };
        let slice = if device == Device::Cpu { CPU_SLICE_TOKENS } else { SLICE_TOKENS };
        let mut need = memory::of_plan(plan, prepared, slice);
        if self.holds(device, plan) {
            // Another lane of the device has the weights, and they aren't free any more.
            need.weights = 0;
        }
        let needed = need.passes();
        if needed > share.most {
            return Err(ExecError::DoesNotFit { device: lane.name.clone(), needed, free: share.most });
        }
        if needed > share.now {
            tracing::warn!(
                lane = lane.lane,
                device = lane.name,
                needed,
                free = share.now,
                "memory may not suffice for the plan's chunks beside what this worker has in memory"
            );
        }
        Ok(room(share.now, needed))
    }

    /// Whether a lane of the device holds the plan's weights.
    fn holds(&self, device: Device, plan: &Plan) -> bool {
        let key = (plan.model.weights_sha256.clone(), format!("{device:?}"), plan.spec.model.dtype);
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(&key).is_some_and(|m| m.strong_count() > 0)
    }

    /// The verified model, loaded where no other lane of the device has it.
    fn model(
        &self,
        device: Device,
        plan: &Plan,
        path: &Path,
        progress: &dyn Fn(&str, u64, u64),
    ) -> Result<Arc<SharedModel>, ExecError> {
        let dtype = plan.spec.model.dtype;
        let key = (plan.model.weights_sha256.clone(), format!("{device:?}"), dtype);
        // Held while loading: a second lane of the device waits for the first one's copy.
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = models.get(&key).and_then(Weak::upgrade) {
            return Ok(model);
        }
        let inspected = inspect(path)
            .map_err(|e| ExecError::ModelMissing { path: path.to_owned(), detail: e.to_string() })?;
        if inspected.info.weights_sha256 != plan.model.weights_sha256 {
            return Err(ExecError::ModelDiffers {
                expected: plan.model.weights_sha256.clone(),
                found: inspected.info.weights_sha256,
            });
        }
        let kind = match dtype {
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::Bf16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
        };
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            tch::no_grad(|| {
                let weights = Weights::open(&inspected.weights, device, kind)?;
                arch::load(&inspected.info, &weights, device, kind, progress)
            })
        }));
        let model = match loaded {
            Ok(Ok(model)) => Arc::new(SharedModel::new(model)),
            Ok(Err(e)) => return Err(ExecError::Failed(format!("{}: {e}", path.display()))),
            Err(_) => {
                return Err(ExecError::OutOfMemory { detail: "libtorch could not hold the weights".into() });
            }
        };
        models.insert(key, Arc::downgrade(&model));
        Ok(model)
    }
}

impl OpenExperiment for TorchOpener {
    fn open(
        &self,
        lane: &LaneDevice,
        experiment: &Experiment,
        progress: &dyn Fn(&str, u64, u64),
    ) -> Result<Box<dyn Executor>, ExecError> {
        let (plan, prepared) = (Arc::clone(&experiment.plan), Arc::clone(&experiment.prepared));
        let room = self.room(lane, &plan, &prepared)?;
        let model = self.model(torch(lane.device), &plan, &experiment.model, progress)?;
        let engine = Engine::new(model, plan, prepared).keeping(room);
        Ok(Box::new(engine.with_constants(Arc::clone(&experiment.constants))))
    }
}

impl Executor for Engine {
    fn run_chunk(
        &mut self,
        sweep: u32,
        round: u32,
        list: &[UnitIx],
        chunk: u32,
        stop: &AtomicBool,
    ) -> Result<ChunkScores, ExecError> {
        self.run(sweep, round, list, chunk, stop).map_err(|e| match e {
            Error::Stopped => ExecError::Stopped,
            Error::OutOfMemory(detail) => ExecError::OutOfMemory { detail },
            Error::Failed(detail) => ExecError::Failed(detail),
        })
    }
}
