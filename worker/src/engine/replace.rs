//! What replaces z of ablated heads: b, stage by stage, and how it is measured: means over a reference
//! set, and states of donors.

use super::base::{BaseSet, BaseState, DeviceBatch};
use super::model::Model;
use super::pass::sum_real;
use ablate_common::head::Stream;
use ablate_common::plan::{Batch, Pool};
use ablate_common::task::{Item, Prepared};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// b of every head, a tensor for each stage.
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
    /// within the stage.
    pub fn subtract(&self, stage: usize, z: Tensor, heads: &Tensor, len: i64) -> Tensor {
        match self {
            Self::Constant(b) => z - b[stage].index_select(0, heads),
            Self::Position(b) => {
                let (n, dh) = (z.size()[1], z.size()[2]);
                (z.view([-1, len, n, dh]) - b[stage].narrow(0, 0, len).index_select(1, heads))
                    .view([-1, n, dh])
            }
            Self::Tokens(b) => z - b[stage].index_select(1, heads),
        }
    }

    /// Σ over `heads` of b_h W_O: `[d_model]`, `[positions, d_model]` by position, or `[batch · len, d_model]`.
    pub fn output(&self, model: &Model, stage: usize, heads: &[u32]) -> Tensor {
        let pick = model.indices(&heads.iter().map(|&h| i64::from(h)).collect::<Vec<_>>());
        let wo = model.blocks[stage].wo_heads.index_select(0, &pick);
        let by_head = match self {
            Self::Constant(b) => {
                let each = b[stage].index_select(0, &pick).unsqueeze(1).bmm(&wo);
                return each.squeeze_dim(1).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
            }
            Self::Position(b) | Self::Tokens(b) => b[stage].index_select(1, &pick).transpose(0, 1),
        };
        by_head.bmm(&wo).sum_dim_intlist([0i64].as_slice(), false, None::<Kind>)
    }
}

/// Means of z over the items of a reference set, summed in f64.
#[derive(Debug)]
pub struct Means {
    pool: Pool,
    stages: Vec<Sum>,
}

/// What is summed of one stage.
#[derive(Debug)]
struct Sum {
    /// Whose tokens count.
    stream: Stream,
    /// z: `[1 or positions, heads · head_dim]`.
    z: Tensor,
    /// Tokens: `[1 or positions, 1]`.
    tokens: Tensor,
}

impl Means {
    /// Nothing summed yet; `batches` are those that will be.
    #[must_use]
    pub fn new(model: &Model, pool: Pool, batches: &[DeviceBatch]) -> Self {
        let width = i64::from(model.info.n_heads) * model.head_dim();
        let wide = (Kind::Double, model.device);
        let stage = |at| {
            let stream = model.info.heads.stage(at).stream;
            let positions = match pool {
                Pool::Tokens => 1,
                Pool::Position => batches.iter().map(|b| b.len_at(stream)).max().unwrap_or(0),
            };
            Sum {
                stream,
                z: Tensor::zeros([positions, width], wide),
                tokens: Tensor::zeros([positions, 1], wide),
            }
        };
        Self { pool, stages: (0..model.blocks.len()).map(stage).collect() }
    }

    /// Adds the tokens of a batch, padding left out.
    pub fn add(&mut self, state: &BaseState, batch: &DeviceBatch) {
        for (sum, z) in self.stages.iter_mut().zip(&state.z) {
            let (len, real) = (batch.len_at(sum.stream), batch.real_at(sum.stream));
            match self.pool {
                Pool::Tokens => {
                    let _ = sum.tokens.g_add_(&real.sum(Kind::Double));
                    let _ = sum.z.g_add_(&sum_real(z, real).unsqueeze(0));
                }
                Pool::Position => {
                    let per = real.sum_dim_intlist([0i64].as_slice(), false, None::<Kind>).unsqueeze(1);
                    let _ = sum.tokens.narrow(0, 0, len).g_add_(&per);
                    let width = sum.z.size()[1];
                    let weighted = z.to_kind(Kind::Double).view([-1, len, width]) * real.unsqueeze(-1);
                    let per = weighted.sum_dim_intlist([0i64].as_slice(), false, None::<Kind>);
                    let _ = sum.z.narrow(0, 0, len).g_add_(&per);
                }
            }
        }
    }

    /// The means.
    #[must_use]
    pub fn finish(self, model: &Model) -> Replacement {
        let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
        let means = self.stages.into_iter().map(|s| (s.z / s.tokens.clamp_min(1.0)).to_kind(model.kind));
        match self.pool {
            Pool::Tokens => Replacement::Constant(means.map(|m| m.view([h, dh])).collect()),
            Pool::Position => Replacement::Position(means.map(|m| m.view([-1, h, dh])).collect()),
        }
    }
}

/// z of the unablated model on the donors of a batch's items, brought to the batch's positions: position p
/// of an item gets its donor's position p, or the donor's last one where the donor is shorter; in a decoder's
/// streams these are positions of the targets. `donors` has for each item of the task its donor among the items
/// of `source`.
#[must_use]
pub fn donor_states(model: &Model, source: &Prepared, donors: &[u32], batch: &DeviceBatch) -> Replacement {
    let items: Vec<u32> = batch.items.iter().map(|&i| donors[i as usize]).collect();
    let donated = || items.iter().map(|&i| &source.items[i as usize]);
    let len = donated().map(|i| i.tokens.len() as u32).max().unwrap_or(1);
    let device = DeviceBatch::new(model, source, &Batch { items: items.clone(), len });
    let mut base = BaseSet::empty(model, 1);
    let (state, _) = base.state(model, 0, &device);
    let rows = |stream: Stream| {
        let own = |item: &Item| match stream {
            Stream::Decoder | Stream::Cross => item.decoder.len(),
            Stream::SelfAttention | Stream::Encoder => item.tokens.len(),
        };
        let (len, wanted) = (device.len_at(stream) as usize, batch.len_at(stream) as usize);
        let rows: Vec<i64> = donated()
            .map(own)
            .enumerate()
            .flat_map(|(row, own)| (0..wanted).map(move |p| (row * len + p.min(own - 1)) as i64))
            .collect();
        model.indices(&rows)
    };
    let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
    let stage = |(at, z): (usize, &Tensor)| {
        z.index_select(0, &rows(model.info.heads.stage(at).stream)).view([-1, h, dh])
    };
    Replacement::Tokens(state.z.iter().enumerate().map(stage).collect())
}

/// Donors' states of a task's batches, as far as memory holds them.
#[derive(Debug, Default)]
pub struct DonorStates {
    batches: Vec<Option<Arc<Replacement>>>,
}

impl DonorStates {
    /// Those of batch `at`, fetched where they aren't there.
    pub fn get(&mut self, at: usize, fetch: impl FnOnce() -> Arc<Replacement>) -> &Replacement {
        if self.batches.len() <= at {
            self.batches.resize_with(at + 1, || None);
        }
        self.batches[at].get_or_insert_with(fetch)
    }

    /// Gives back the memory of batch `at`.
    pub fn forget(&mut self, at: usize) {
        if let Some(slot) = self.batches.get_mut(at) {
            *slot = None;
        }
    }
}
