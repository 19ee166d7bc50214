//! What the lanes of one device share: a model's tensors, and what was measured of the unablated model to stand in place of z,
//! the means over reference sets and the states of donors. The first lane that needs it measures; others, and other
//! ablations of the same, take it from there. Nobody can tell by the bits who it was: a measurement is the same operations on
//! the same batches in every lane.

use super::base::DeviceBatch;
use super::model::Model;
use super::replace::{Replacement, donor_states};
use ablate_common::plan::{Batch, Pool};
use ablate_common::task::{Item, Prepared};
use blake3::Hasher;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A model that the lanes of one device share: its tensors are only ever read.
#[derive(Debug)]
pub struct SharedModel(pub(super) Model, Measured);

#[expect(unsafe_code, reason = "tch's Tensor isn't Sync because most methods may mutate; see SAFETY")]
mod sync {
    // SAFETY: the weights are never written after loading, every access is through `&Model` by operations
    // that read them, and libtorch's reference counts are atomic.
    unsafe impl Sync for super::SharedModel {}
    // SAFETY: a tensor may be used and dropped on any thread.
    unsafe impl Send for super::SharedModel {}
    // SAFETY: as for the weights: made once, and then only read.
    unsafe impl Sync for super::Replacement {}
}

/// Hash of everything that a measurement depends on besides the model.
type Key = [u8; 32];

/// Measurements, as long as an engine holds them.
#[derive(Debug, Default)]
struct Measured {
    /// A slot is locked while it is being filled.
    slots: Mutex<HashMap<Key, Arc<Mutex<Weak<Replacement>>>>>,
    /// How many were made.
    made: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A measurement that panicked has left nothing behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedModel {
    /// Wraps a loaded model.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self(model, Measured::default())
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.0
    }

    /// Measurements made so far, by whichever lane.
    #[must_use]
    pub fn measurements(&self) -> u64 {
        self.1.made.load(Ordering::Relaxed)
    }

    /// What was measured under `key`, measured now where no engine holds it.
    fn measured(&self, key: Key, measure: impl FnOnce() -> Replacement) -> Arc<Replacement> {
        let slot = {
            let mut slots = lock(&self.1.slots);
            // Those that nobody holds or waits for.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || lock(slot).strong_count() > 0);
            Arc::clone(slots.entry(key).or_default())
        };
        let mut held = lock(&slot);
        if let Some(there) = held.upgrade() {
            return there;
        }
        let made = Arc::new(measure());
        self.1.made.fetch_add(1, Ordering::Relaxed);
        *held = Arc::downgrade(&made);
        made
    }

    /// Means of z over the items of these batches.
    pub(super) fn means(
        &self,
        pool: Pool,
        items: &Prepared,
        batches: &[Batch],
        measure: impl FnOnce() -> Replacement,
    ) -> Arc<Replacement> {
        let mut hash = Hasher::new();
        let _ = hash.update(match pool {
            Pool::Tokens => b"token",
            Pool::Position => b"place",
        });
        for batch in batches {
            number(&mut hash, u64::from(batch.len));
            sequences(&mut hash, &batch.items, items);
        }
        self.measured(hash.finalize().into(), measure)
    }

    /// z of the donors of a batch's items (see [`donor_states`]).
    pub(super) fn donated(&self, source: &Prepared, donors: &[u32], batch: &DeviceBatch) -> Arc<Replacement> {
        let mut hash = Hasher::new();
        let _ = hash.update(b"donors");
        for len in [batch.len, batch.decoder.as_ref().map_or(0, |d| d.len)] {
            number(&mut hash, len.unsigned_abs());
        }
        let items: Vec<u32> = batch.items.iter().map(|&i| donors[i as usize]).collect();
        sequences(&mut hash, &items, source);
        self.measured(hash.finalize().into(), || donor_states(&self.0, source, donors, batch))
    }
}

fn number(hash: &mut Hasher, value: u64) {
    let _ = hash.update(&value.to_le_bytes());
}

/// Everything of some items that the model is shown.
fn sequences(hash: &mut Hasher, items: &[u32], of: &Prepared) {
    number(hash, items.len() as u64);
    for &item in items {
        let Item { tokens, decoder, image, scored: _ } = &of.items[item as usize];
        for sequence in [tokens, decoder] {
            number(hash, sequence.len() as u64);
            sequence.iter().for_each(|&token| number(hash, u64::from(token)));
        }
        if let Some(image) = image {
            let _ = hash.update(&image.levels);
            let _ = hash.update(format!("{:?}", image.scaling).as_bytes());
        }
    }
}
