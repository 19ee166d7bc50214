//! Where results wait for the committer. Bounded in number and in bytes: while a disk hesitates, workers' streams go on and their next
//! shards come in time; once it is behind by that much, the streams wait.

use super::commit::Arrived;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Results that may wait: most of a second of a coordinator's fastest.
const RESULTS: usize = 4096;
/// Bytes of results that may wait, in pages of [`PAGE`].
const PAGES: usize = (64 << 20) / PAGE;
const PAGE: usize = 4096;

/// A result that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The result.
    pub arrived: Arrived,
    /// Its share of the bytes, until it is taken.
    _room: OwnedSemaphorePermit,
}

/// The side of the streams.
#[derive(Clone, Debug)]
pub struct Inlet {
    to: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Inlet {
    /// An inlet, and the side of the committer.
    pub fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (to, from) = mpsc::channel(RESULTS);
        (Self { to, room: Arc::new(Semaphore::new(PAGES)) }, from)
    }

    /// Waits for room, and hands the result over; false where no committer is left.
    pub async fn send(&self, arrived: Arrived) -> bool {
        // One that is larger than all room takes all of it.
        let pages = (arrived.bytes() / PAGE + 1).min(PAGES) as u32;
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(pages).await else { return false };
        self.to.send(Waiting { arrived, _room: room }).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ChunkKey, Incoming};
    use futures::FutureExt;
    use tokio::task::unconstrained;

    fn result(bytes: usize) -> Arrived {
        let key = ChunkKey { experiment: "e".into(), sweep: 0, round: 0, chunk: 0 };
        let incoming = Incoming {
            key,
            scores: vec![0; bytes],
            device_class: String::new(),
            worker: String::new(),
            version: String::new(),
            busy_us: 0,
        };
        Arrived { incoming, worker: 1, lease: 1, idle_us: 0 }
    }

    #[tokio::test]
    async fn results_wait_up_to_a_number_and_to_so_many_bytes_however_large_one_is() {
        let (inlet, mut from) = Inlet::new();
        // At once or not at all, whatever tokio thinks of so many at a time.
        let now = |bytes| unconstrained(inlet.send(result(bytes))).now_or_never();
        for _ in 0..RESULTS {
            assert_eq!(now(1), Some(true));
        }
        assert_eq!(now(1), None, "so many wait");
        for _ in 0..RESULTS {
            unconstrained(from.recv()).await.unwrap();
        }
        let large = PAGES * PAGE;
        assert_eq!(now(2 * large), Some(true), "alone it finds room");
        assert_eq!(now(1), None, "all bytes are taken");
        assert_eq!(from.recv().await.unwrap().arrived.incoming.scores.len(), 2 * large);
        assert_eq!(now(1), Some(true), "what is taken makes room");
        unconstrained(from.recv()).await.unwrap();
        let mut wordy = result(1);
        wordy.incoming.device_class = "x".repeat(large);
        assert_eq!(unconstrained(inlet.send(wordy)).now_or_never(), Some(true));
        assert_eq!(now(1), None, "words take room as scores do");
        drop(from);
        assert_eq!(now(1), Some(false));
    }
}
