//! Which items go through the model together.

use ablate_common::plan::Batch;
use ablate_common::task::{Item, Prepared, Scope};

/// Most padded tokens in a batch of more than one item.
pub const BATCH_TOKENS: usize = 512;

/// Items of a scope by length, in batches whose padding is at most a quarter.
pub fn batches(prepared: &Prepared, scope: Scope) -> Vec<Batch> {
    of_items(&prepared.items, prepared.items_in(scope))
}

/// The same of `items` of a list.
pub fn of_items(all: &[Item], mut items: Vec<u32>) -> Vec<Batch> {
    let len = |i: u32| all[i as usize].tokens.len();
    items.sort_by_key(|&i| (len(i), i));
    let mut out: Vec<Batch> = Vec::new();
    let mut tokens = 0;
    for i in items {
        // Lengths ascend, so the new item's is the padded length.
        let n = len(i);
        if let Some(last) = out.last_mut() {
            let padded = (last.items.len() + 1) * n;
            if padded <= BATCH_TOKENS && (padded - tokens - n) * 4 <= padded {
                last.items.push(i);
                last.len = n as u32;
                tokens += n;
                continue;
            }
        }
        out.push(Batch { items: vec![i], len: n as u32 });
        tokens = n;
    }
    out
}
