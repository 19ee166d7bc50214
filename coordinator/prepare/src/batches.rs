//! Which items go through the model together.

use ablate_common::plan::Batch;
use ablate_common::task::{Item, Prepared, Scope};

/// Most padded tokens in a batch of more than one item: of what an encoder (or the whole model) reads, and of what a decoder behind an
/// encoder does.
pub const BATCH_TOKENS: usize = 512;

/// Items of a scope by length, in batches whose padding is at most a quarter: of the sources, and of the targets where there are any.
pub fn batches(prepared: &Prepared, scope: Scope) -> Vec<Batch> {
    of_items(&prepared.items, prepared.items_in(scope))
}

/// The same of `items` of a list.
pub fn of_items(all: &[Item], mut items: Vec<u32>) -> Vec<Batch> {
    let lengths = |i: u32| {
        let item = &all[i as usize];
        [item.tokens.len(), item.decoder.len()]
    };
    items.sort_by_key(|&i| (lengths(i), i));
    let mut out: Vec<Filling> = Vec::new();
    for i in items {
        let own = lengths(i);
        // Where sources are all there is they ascend, and what didn't fit into a batch leaves no room there for others. A short target
        // may go where a long one didn't.
        let first = if own[1] == 0 { out.len().saturating_sub(1) } else { 0 };
        match out[first..].iter_mut().find(|batch| batch.has_room_for(own)) {
            Some(batch) => batch.add(i, own),
            None => {
                let mut batch = Filling::default();
                batch.add(i, own);
                out.push(batch);
            }
        }
    }
    out.into_iter().map(|b| Batch { items: b.items, len: b.longest[0] as u32 }).collect()
}

/// A batch that is being filled.
#[derive(Default)]
struct Filling {
    items: Vec<u32>,
    /// Tokens of its longest source, and of its longest target.
    longest: [usize; 2],
    /// Tokens of all sources, and of all targets.
    tokens: [usize; 2],
}

impl Filling {
    fn has_room_for(&self, own: [usize; 2]) -> bool {
        (0..2).all(|side| {
            let padded = (self.items.len() + 1) * self.longest[side].max(own[side]);
            padded <= BATCH_TOKENS && (padded - self.tokens[side] - own[side]) * 4 <= padded
        })
    }

    fn add(&mut self, item: u32, own: [usize; 2]) {
        self.items.push(item);
        for (side, own) in own.into_iter().enumerate() {
            self.longest[side] = self.longest[side].max(own);
            self.tokens[side] += own;
        }
    }
}
