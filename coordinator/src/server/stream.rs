//! Streams of what lies in memory until it is read: each holds a permit, so that no more of it is there than there are permits.

use futures::{Stream, StreamExt};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How long a reader may take for one part. Whoever takes longer would keep others from the permit.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Parts that wait for their reader.
const AHEAD: usize = 4;

/// Streams `parts`. The permit goes with the last of them, with a reader that goes away, or once that takes longer than `patience` for
/// a part; then the stream ends with an error, so that nobody takes what came for the whole.
pub fn holding<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    parts: impl Iterator<Item = T> + Send + 'static,
    patience: Duration,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let (to, out) = mpsc::channel::<Result<T, Status>>(AHEAD);
    let (whole, ended) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let _permit = permit;
        for part in parts {
            if !matches!(tokio::time::timeout(patience, to.send(Ok(part))).await, Ok(Ok(()))) {
                return;
            }
        }
        // An error says that the reader has just gone.
        let _ = whole.send(());
    });
    let cut = futures::stream::once(ended).filter_map(|ended| {
        let why = "it wasn't read for too long, and others wait; ask again";
        std::future::ready(ended.err().map(|_| Err(Status::deadline_exceeded(why))))
    });
    ReceiverStream::new(out).chain(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    async fn permit(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        tokio::time::timeout(PATIENCE, Arc::clone(of).acquire_owned()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_permit_is_held_while_parts_wait_to_be_read() {
        let permits = Arc::new(Semaphore::new(1));
        let mut stream = Box::pin(holding(permit(&permits).await, 0..10, PATIENCE));
        for part in 0..10 {
            // Of ten parts at least one isn't sent yet, whatever is ahead.
            if part + AHEAD < 10 {
                assert_eq!(permits.available_permits(), 0, "before part {part}");
            }
            assert_eq!(stream.next().await.unwrap().unwrap(), part);
        }
        assert!(stream.next().await.is_none());
        drop(permit(&permits).await);

        // A reader that goes away gives it back.
        let mut stream = Box::pin(holding(permit(&permits).await, 0..10, PATIENCE));
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        drop(stream);
        drop(permit(&permits).await);
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_loses_the_permit_and_is_told_that_parts_are_missing() {
        let permits = Arc::new(Semaphore::new(1));
        let stream = holding(permit(&permits).await, 0..10, Duration::ZERO);
        drop(permit(&permits).await);
        let all: Vec<Result<usize, Status>> = stream.collect().await;
        assert_eq!(all.len(), AHEAD + 1);
        assert!(all[..AHEAD].iter().all(Result::is_ok));
        assert_eq!(all[AHEAD].as_ref().unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
}
