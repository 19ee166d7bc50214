//! How long what fails is tried again, before it counts as the trouble of one experiment alone.

use super::actor::Command;
use std::time::Duration;
use tokio::sync::mpsc;

/// Tries beside the first: they last longer than a disk or database hesitates.
pub const TRIES: u32 = 30;
/// From one try to the next.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Waits for the next try; false where the actor has ended, and nobody wants it any more.
pub async fn pause(actor: &mpsc::Sender<Command>) -> bool {
    tokio::select! {
        biased;
        () = actor.closed() => false,
        () = tokio::time::sleep(PAUSE) => true,
    }
}
