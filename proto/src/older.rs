//! What messages of an older protocol don't have: left out before they are sent to a program that speaks it, so that it is told
//! nothing that it doesn't know.

use crate::v1::{CoordinatorMessage, WorkerMessage, coordinator_message, worker_message};

/// The first protocol with fitted constants, and with the time that lanes wait.
const CONSTANTS: u32 = 3;

/// As a worker says it in a protocol.
#[must_use]
pub fn from_worker(mut message: WorkerMessage, protocol: u32) -> WorkerMessage {
    if protocol < CONSTANTS
        && let Some(worker_message::Body::Result(r)) = &mut message.body
    {
        r.idle_us = 0;
    }
    message
}

/// As a coordinator says it in a protocol.
#[must_use]
pub fn from_coordinator(mut message: CoordinatorMessage, protocol: u32) -> CoordinatorMessage {
    if protocol < CONSTANTS
        && let Some(coordinator_message::Body::Open(open)) = &mut message.body
    {
        open.constants.clear();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ChunkResult, Open};
    use prost::Message;

    #[test]
    fn protocol_2_has_neither_constants_nor_waiting_times() {
        let result = ChunkResult { busy_us: 1, idle_us: 2, ..ChunkResult::default() };
        let said = WorkerMessage { body: Some(worker_message::Body::Result(result.clone())) };
        let before =
            WorkerMessage { body: Some(worker_message::Body::Result(ChunkResult { idle_us: 0, ..result })) };
        assert_eq!(from_worker(said.clone(), 2).encode_to_vec(), before.encode_to_vec());
        assert_eq!(from_worker(said.clone(), 3), said);
        let open =
            Open { experiment: "e".into(), constants: vec![String::new(), "c".into()], ..Open::default() };
        let told = CoordinatorMessage { body: Some(coordinator_message::Body::Open(open.clone())) };
        let before = CoordinatorMessage {
            body: Some(coordinator_message::Body::Open(Open { constants: Vec::new(), ..open })),
        };
        assert_eq!(from_coordinator(told.clone(), 2).encode_to_vec(), before.encode_to_vec());
        assert_eq!(from_coordinator(told.clone(), 3), told);
    }
}
