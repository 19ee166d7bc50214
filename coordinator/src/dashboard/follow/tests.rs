//! What is followed, and for how long.

use super::*;
use crate::server::{Options, Service};
use crate::store::MemoryStore;
use crate::store::conformance::experiment;

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_anew_and_what_nobody_asks_for_is_let_go() {
    let service = Service::start(Options::default(), Arc::new(MemoryStore::default())).await.unwrap();
    let (id, _) = service.submit(experiment(1)).await.unwrap();
    let follows = service.follows();
    let ago = |time: Duration| Instant::now().checked_sub(time).unwrap();
    let first = follows.get(&id).unwrap();
    let version = first.ask(|live| live.version()).await.unwrap();
    *lock(&first.failed) = Some(Instant::now());
    assert!(Arc::ptr_eq(&first, &follows.get(&id).unwrap()), "not at once");
    *lock(&first.failed) = Some(ago(AGAIN));
    let second = follows.get(&id).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(second.ask(|live| live.version()).await.unwrap() > version, "no version is told twice");
    *lock(&second.used) = ago(PATIENCE);
    for _ in 0..400 {
        if !lock(&follows.all).contains_key(&id) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it is still followed");
}
