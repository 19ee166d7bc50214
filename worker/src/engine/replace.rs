//! What replaces z of ablated heads: b, layer by layer, and how it is measured: means over a reference
//! set, and states of donors.

use super::base::{BaseSet, BaseState, DeviceBatch};
use super::model::Model;
use super::pass::sum_real;
use ablate_common::plan::{Batch, Pool};
use ablate_common::task::Prepared;
use tch::{Kind, Tensor};

/// b of every head, a tensor for each layer.
#[derive(Debug)]
pub enum Replacement {
    /// The same everywhere: `[heads, head_dim]`.
    Constant(Vec<Tensor>),
    /// By position: `[positions, heads, head_dim]`, as many positions as the longest sequence needs.
    Position(Vec<Tensor>),
    /// For each token of one batch: `[batch · len, heads, head_dim]`.
    Tokens(Vec<Tensor>),
}

impl Replacement {
    /// z − b of some heads: `z [tokens, n, head_dim]` of sequences of `len` tokens, `heads [n]` their places
    /// within the layer.
    pub fn subtract(&self, layer: usize, z: Tensor, heads: &Tensor, len: i64) -> Tensor {
        match self {
            Self::Constant(b) => z - b[layer].index_select(0, heads),
            Self::Position(b) => {
                let (n, dh) = (z.size()[1], z.size()[2]);
                (z.view([-1, len, n, dh]) - b[layer].narrow(0, 0, len).index_select(1, heads))
                    .view([-1, n, dh])
            }
            Self::Tokens(b) => z - b[layer].index_select(1, heads),
        }
    }

    /// Σ over `heads` of b_h W_O: `[d_model]`, `[positions, d_model]` by position, or `[batch · len, d_model]`.
    pub fn output(&self, model: &Model, layer: usize, heads: &[u32]) -> Tensor {
        let pick = model.indices(&heads.iter().map(|&h| i64::from(h)).collect::<Vec<_>>());
        let wo = model.blocks[layer].wo_heads.index_select(0, &pick);
        let by_head = match self {
            Self::Constant(b) => {
                let each = b[layer].index_select(0, &pick).unsqueeze(1).bmm(&wo);
                return each.squeeze_dim(1).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
            }
            Self::Position(b) | Self::Tokens(b) => b[layer].index_select(1, &pick).transpose(0, 1),
        };
        by_head.bmm(&wo).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>)
    }
}

/// Means of z over the items of a reference set, summed in f64.
#[derive(Debug)]
pub struct Means {
    pool: Pool,
    /// Per layer `[1 or positions, heads · head_dim]`.
    sums: Vec<Tensor>,
    /// `[1 or positions, 1]`.
    counts: Tensor,
}

impl Means {
    /// Nothing summed yet; `longest` is the padded length of the longest batch.
    #[must_use]
    pub fn new(model: &Model, pool: Pool, longest: i64) -> Self {
        let width = i64::from(model.info.n_heads) * model.head_dim();
        let positions = match pool {
            Pool::Tokens => 1,
            Pool::Position => longest,
        };
        let wide = (Kind::Double, model.device);
        Self {
            pool,
            sums: model.blocks.iter().map(|_| Tensor::zeros([positions, width], wide)).collect(),
            counts: Tensor::zeros([positions, 1], wide),
        }
    }

    /// Adds the tokens of a batch, padding left out.
    pub fn add(&mut self, state: &BaseState, batch: &DeviceBatch) {
        match self.pool {
            Pool::Tokens => {
                let _ = self.counts.g_add_(&batch.real.sum(Kind::Double));
            }
            Pool::Position => {
                let per = batch.real.sum_dim_intlist([0i64].as_slice(), false, None::<Kind>).unsqueeze(1);
                let _ = self.counts.narrow(0, 0, batch.len).g_add_(&per);
            }
        }
        for (layer, sum) in self.sums.iter_mut().enumerate() {
            match self.pool {
                Pool::Tokens => {
                    let _ = sum.g_add_(&sum_real(&state.z[layer], batch).unsqueeze(0));
                }
                Pool::Position => {
                    let width = sum.size()[1];
                    let z = state.z[layer].to_kind(Kind::Double).view([-1, batch.len, width]);
                    let weighted = z * batch.real.unsqueeze(-1);
                    let per = weighted.sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
                    let _ = sum.narrow(0, 0, batch.len).g_add_(&per);
                }
            }
        }
    }

    /// The means.
    #[must_use]
    pub fn finish(self, model: &Model) -> Replacement {
        let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
        let counts = self.counts.clamp_min(1.0);
        let means = self.sums.into_iter().map(|s| (s / &counts).to_kind(model.kind));
        match self.pool {
            Pool::Tokens => Replacement::Constant(means.map(|m| m.view([h, dh])).collect()),
            Pool::Position => Replacement::Position(means.map(|m| m.view([-1, h, dh])).collect()),
        }
    }
}

/// z of the unablated model on the donors of a batch's items, brought to the batch's positions: position p
/// of an item gets its donor's position p, or the donor's last one where the donor is shorter. `donors` has
/// for each item of the task its donor among the items of `source`.
#[must_use]
pub fn donor_states(model: &Model, source: &Prepared, donors: &[u32], batch: &DeviceBatch) -> Replacement {
    let items: Vec<u32> = batch.items.iter().map(|&i| donors[i as usize]).collect();
    let lengths: Vec<usize> = items.iter().map(|&i| source.items[i as usize].tokens.len()).collect();
    let len = lengths.iter().copied().max().unwrap_or(1);
    let device = DeviceBatch::new(model, source, &Batch { items, len: len as u32 });
    let mut base = BaseSet::empty(model, 1);
    let (state, _) = base.state(model, 0, &device);
    let rows: Vec<i64> = lengths
        .iter()
        .enumerate()
        .flat_map(|(row, &own)| (0..batch.len as usize).map(move |p| (row * len + p.min(own - 1)) as i64))
        .collect();
    let rows = model.indices(&rows);
    let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
    Replacement::Tokens(state.z.iter().map(|z| z.index_select(0, &rows).view([-1, h, dh])).collect())
}

/// Donors' states of a task's batches, as far as memory holds them.
#[derive(Debug, Default)]
pub struct DonorStates {
    batches: Vec<Option<Replacement>>,
}

impl DonorStates {
    /// Those of batch `at`, made where they aren't there.
    pub fn get(&mut self, at: usize, make: impl FnOnce() -> Replacement) -> &Replacement {
        if self.batches.len() <= at {
            self.batches.resize_with(at + 1, || None);
        }
        self.batches[at].get_or_insert_with(make)
    }

    /// Gives back the memory of batch `at`.
    pub fn forget(&mut self, at: usize) {
        if let Some(slot) = self.batches.get_mut(at) {
            *slot = None;
        }
    }
}
