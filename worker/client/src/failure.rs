//! The engine's errors as the wire has them: typed, never formatted text alone.

use crate::lane::ExecError;
use ablate_proto::v1::{self as pb, failure::Kind};

/// The failure that tells the coordinator of an error.
#[must_use]
pub fn failure_of(error: &ExecError) -> pb::Failure {
    let kind = match error {
        ExecError::ModelMissing { path, .. } => {
            Kind::ModelMissing(pb::ModelMissing { path: path.display().to_string() })
        }
        ExecError::ModelDiffers { expected, found } => {
            Kind::ModelDiffers(pb::ModelDiffers { expected: expected.clone(), found: found.clone() })
        }
        ExecError::OutOfMemory { .. } => Kind::OutOfMemory(pb::OutOfMemory { requested_bytes: 0 }),
        ExecError::DoesNotFit { device, needed, free } => Kind::DoesNotFit(pb::DoesNotFit {
            device: device.clone(),
            needed_bytes: *needed,
            free_bytes: *free,
        }),
        ExecError::Stopped | ExecError::Failed(_) => Kind::Execution(pb::Execution {}),
    };
    pb::Failure { detail: error.to_string(), kind: Some(kind) }
}
