//! States that many subsets share: the residual stream, z and attention output of every stage with a
//! base set of heads gone, per batch. A greedy round that removes one more head recomputes only the
//! stages from that head on; the same operations on the same shapes, so the same bits as from scratch.

use super::decoder::Keys;
use super::images::Images;
use super::model::{AttnView, BaseCut, Model};
use super::replace::Replacement;
use ablate_common::head::Stream;
use ablate_common::plan::Batch;
use ablate_common::task::{Item, Prepared, Scored, TaskKind};
use tch::{Device, Kind, Tensor};

/// A batch of items on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// Item indices, in row order.
    pub items: Vec<u32>,
    /// Padded length.
    pub len: i64,
    /// Token ids `[batch, len]`; padding is token 0.
    pub tokens: Tensor,
    /// Added to attention scores where padding must be hidden: `[batch, 1, 1, len]`.
    pub mask: Option<Tensor>,
    /// The items' images; none where they are text.
    pub images: Option<Images>,
    /// 1 for tokens, 0 for padding: `[batch, len]`, f64.
    pub real: Tensor,
    /// What the decoder of an encoder-decoder reads; the fields above are the source's then. None for other
    /// models.
    pub decoder: Option<Target>,
    /// Rows of `[batch · len]` (of the decoder's, where there is one) whose logits are scored, in item order; none
    /// for embedding kinds.
    pub scored: Option<Tensor>,
    /// Targets of the scored rows `[scored]`.
    pub targets: Tensor,
    /// Foils of the scored rows `[scored]`.
    pub foils: Tensor,
    /// Of each item of an encoder-decoder the target, without the token that ends it.
    pub references: Vec<Vec<u32>>,
    /// Greater-than: for each scored row the tokens that are weighed, `[scored, tokens]`, and their weights
    /// (1, −1, or 0 where a row has fewer).
    pub weighed: Option<(Tensor, Tensor)>,
    /// For each scored row its item's place in `items`.
    pub owner: Vec<usize>,
}

/// The decoder's tokens of a batch.
#[derive(Debug)]
pub struct Target {
    /// Padded length.
    pub len: i64,
    /// Token ids `[batch, len]`; padding is token 0.
    pub tokens: Tensor,
    /// 1 for tokens, 0 for padding: `[batch, len]`, f64.
    pub real: Tensor,
}

impl Target {
    fn shallow_clone(&self) -> Self {
        Self { len: self.len, tokens: self.tokens.shallow_clone(), real: self.real.shallow_clone() }
    }
}

/// Tokens of several sequences, padded to `len` with token 0, and which are no padding.
fn pad<'a>(sequences: impl Iterator<Item = &'a [u32]>, len: i64) -> (Tensor, Tensor) {
    let (mut tokens, mut real) = (Vec::new(), Vec::new());
    for sequence in sequences {
        let end = tokens.len() + len as usize;
        tokens.extend(sequence.iter().map(|&t| i64::from(t)));
        real.resize(tokens.len(), 1.0);
        tokens.resize(end, 0);
        real.resize(end, 0.0);
    }
    (Tensor::from_slice(&tokens).view([-1, len]), Tensor::from_slice(&real).view([-1, len]))
}

impl DeviceBatch {
    /// Puts a planned batch on the model's device.
    #[must_use]
    pub fn new(model: &Model, prepared: &Prepared, batch: &Batch) -> Self {
        let (b, len) = (batch.items.len() as i64, i64::from(batch.len));
        let mut sets: Vec<&[Scored]> = Vec::new();
        let items = || batch.items.iter().map(|&item| &prepared.items[item as usize]);
        let (tokens, real) = pad(items().map(|i| i.tokens.as_slice()), len);
        let decoder = model.decoder.as_ref().map(|_| {
            let len = items().map(|i| i.decoder.len()).max().unwrap_or(0) as i64;
            let (tokens, real) = pad(items().map(|i| i.decoder.as_slice()), len);
            Target { len, tokens: tokens.to_device(model.device), real: real.to_device(model.device) }
        });
        let end = |token: &u32| model.info.details.seq2seq.as_ref().is_some_and(|s| s.end.contains(token));
        let reference = |item: &Item| -> Vec<u32> {
            let target: Vec<u32> = item.scored.iter().map(|s| s.target).collect();
            target.iter().copied().take(target.len() - usize::from(target.last().is_some_and(end))).collect()
        };
        let references = if decoder.is_some() { items().map(reference).collect() } else { Vec::new() };
        let width = decoder.as_ref().map_or(len, |d| d.len);
        let (mut scored, mut targets, mut foils, mut owner) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, item) in items().enumerate() {
            for entries in item.scored.chunk_by(|a, b| a.position == b.position) {
                let s = &entries[0];
                sets.push(entries);
                scored.push(row as i64 * width + i64::from(s.position));
                targets.push(i64::from(s.target));
                foils.push(i64::from(s.foil));
                owner.push(row);
            }
        }
        let weighed = (prepared.kind == TaskKind::GreaterThan).then(|| weighed(model, &sets));
        let padded = bool::try_from(real.eq(0.0).any()).unwrap_or(true);
        // Right padding lies behind every token, where causal attention doesn't look.
        let mask = (padded && !model.arch.causal).then(|| {
            real.eq(0.0)
                .to_kind(Kind::Double)
                .g_mul_scalar(-1e30)
                .to_kind(model.kind)
                .to_device(model.device)
                .view([b, 1, 1, len])
        });
        Self {
            items: batch.items.clone(),
            len,
            images: Images::of(items(), model.device),
            tokens: tokens.to_device(model.device),
            mask,
            real: real.to_device(model.device),
            decoder,
            references,
            scored: (!scored.is_empty()).then(|| model.indices(&scored)),
            targets: model.indices(&targets),
            foils: model.indices(&foils),
            owner,
            weighed,
        }
    }

    /// The batch that several tasks share, which are shown the same and score positions of their own: it scores all
    /// of these. With it, for each task, the places of its own positions among them; none where they are all.
    #[must_use]
    pub fn joint(model: &Model, members: &[&Self]) -> Option<(Self, Vec<Option<Tensor>>)> {
        let first = members.first()?;
        let own: Vec<Option<Vec<i64>>> = members
            .iter()
            .map(|m| m.scored.as_ref().map(|s| Vec::try_from(&s.to_device(Device::Cpu)).unwrap_or_default()))
            .collect();
        let all = if own.contains(&None) {
            None
        } else {
            let mut all: Vec<i64> = own.iter().flatten().flatten().copied().collect();
            all.sort_unstable();
            all.dedup();
            Some(all)
        };
        let place = |row: i64| all.as_ref().map_or(row, |a| a.partition_point(|&r| r < row) as i64);
        let picks = own
            .iter()
            .map(|own| {
                let own = own.as_ref().filter(|o| Some(*o) != all.as_ref())?;
                Some(model.indices(&own.iter().map(|&row| place(row)).collect::<Vec<_>>()))
            })
            .collect();
        let joint = Self { scored: all.map(|rows| model.indices(&rows)), ..first.unscored() };
        Some((joint, picks))
    }

    /// The same batch, with nothing scored: what is of its tokens only.
    #[must_use]
    pub fn unscored(&self) -> Self {
        let none = Tensor::zeros([0], (Kind::Int64, self.tokens.device()));
        Self {
            items: self.items.clone(),
            len: self.len,
            tokens: self.tokens.shallow_clone(),
            mask: self.mask.as_ref().map(Tensor::shallow_clone),
            images: self.images.as_ref().map(Images::shallow_clone),
            real: self.real.shallow_clone(),
            decoder: self.decoder.as_ref().map(Target::shallow_clone),
            scored: None,
            targets: none.shallow_clone(),
            foils: none,
            references: Vec::new(),
            weighed: None,
            owner: Vec::new(),
        }
    }

    /// Padded length of what a stream's attention runs over.
    #[must_use]
    pub fn len_at(&self, stream: Stream) -> i64 {
        self.target_at(stream).map_or(self.len, |d| d.len)
    }

    /// Which tokens of a stream are no padding: `[batch, len]`.
    pub fn real_at(&self, stream: Stream) -> &Tensor {
        self.target_at(stream).map_or(&self.real, |d| &d.real)
    }

    /// Rows of tokens of a stream, `batch · len`.
    #[must_use]
    pub fn tokens_at(&self, stream: Stream) -> i64 {
        self.items.len() as i64 * self.len_at(stream)
    }

    /// Rows of tokens of the final states.
    #[must_use]
    pub fn final_tokens(&self) -> i64 {
        self.items.len() as i64 * self.decoder.as_ref().map_or(self.len, |d| d.len)
    }

    /// The decoder's tokens, for a stream of the decoder.
    fn target_at(&self, stream: Stream) -> Option<&Target> {
        self.decoder.as_ref().filter(|_| matches!(stream, Stream::Decoder | Stream::Cross))
    }

    /// The scored positions of `x [rows, batch · len, width]`; all of them where none are scored.
    pub fn at_scored(&self, x: Tensor) -> Tensor {
        match &self.scored {
            Some(rows) => x.index_select(1, rows),
            None => x,
        }
    }

    /// The source's mask (or the only one) for `copies` copies of the batch stacked.
    #[must_use]
    pub fn mask_for(&self, copies: i64) -> Option<Tensor> {
        let b = self.items.len() as i64;
        self.mask.as_ref().map(|m| {
            m.unsqueeze(0).expand([copies, b, 1, 1, self.len], false).reshape([copies * b, 1, 1, self.len])
        })
    }
}

/// See [`DeviceBatch::weighed`].
fn weighed(model: &Model, sets: &[&[Scored]]) -> (Tensor, Tensor) {
    let (n, most) = (sets.len(), sets.iter().map(|s| s.len()).max().unwrap_or(0));
    let (mut tokens, mut weights) = (vec![0i64; n * most], vec![0f64; n * most]);
    for (row, set) in sets.iter().enumerate() {
        for (k, s) in set.iter().enumerate() {
            tokens[row * most + k] = i64::from(s.target);
            weights[row * most + k] = if s.foil == 1 { 1.0 } else { -1.0 };
        }
    }
    let shape = [n as i64, most as i64];
    (model.indices(&tokens).view(shape), Tensor::from_slice(&weights).view(shape).to_device(model.device))
}

/// One batch under a base set: filled layer by layer.
#[derive(Debug, Default)]
pub struct BaseState {
    /// Residual stream before each stage, and after the last: `[batch · len, d_model]`.
    pub x: Vec<Tensor>,
    /// Attention output of each stage.
    pub out: Vec<Tensor>,
    /// z of the kept heads of each stage: `[batch · len, kept · head_dim]`.
    pub z: Vec<Tensor>,
    /// What the encoder of an encoder-decoder gives: `[batch · len, d_model]`.
    pub memory: Option<Tensor>,
    /// Its keys and values at each stage that attends to it.
    pub keys: Vec<Option<Keys>>,
    /// Σ b_h W_O of each stage's removed heads `[batch · len, d_model]`, where b is another for every token: a
    /// part of `out` that no view adds.
    pub added: Vec<Option<Tensor>>,
}

impl BaseState {
    /// Forgets everything that depends on the heads of `stage` and later.
    pub fn cut_back(&mut self, stage: usize) {
        self.x.truncate(stage + 1);
        self.out.truncate(stage);
        self.z.truncate(stage);
        self.keys.truncate(stage);
        self.added.truncate(stage);
    }

    /// The state with another attention output at one stage: before it, it is this one, which has no heads gone; behind it
    /// everything is computed. Only `x` and the memory can be read of it.
    #[must_use]
    pub fn behind(
        &self,
        model: &Model,
        views: &[AttnView],
        batch: &DeviceBatch,
        stage: usize,
        out: &Tensor,
    ) -> Self {
        let mut x: Vec<Tensor> = self.x[..=stage].iter().map(Tensor::shallow_clone).collect();
        let next = model.after_attention(stage, &x[stage], out);
        let decoder = model.info.heads.decoder_stage();
        let begins = decoder == Some(stage + 1);
        let memory = match (&self.memory, decoder) {
            _ if begins => Some(model.memory(&next)),
            (Some(memory), Some(d)) if d <= stage => Some(memory.shallow_clone()),
            _ => None,
        };
        x.push(match &batch.decoder {
            Some(target) if begins => model.embed_target(&target.tokens),
            _ => next,
        });
        let mut state = Self { x, memory, ..Self::default() };
        state.fill(model, views, batch, |_| None);
        state
    }

    /// Computes what is missing. `added` gives what the heads that a layer lacks add to its attention's output
    /// beyond what its view says.
    pub fn fill(
        &mut self,
        model: &Model,
        views: &[AttnView],
        batch: &DeviceBatch,
        added: impl Fn(usize) -> Option<Tensor>,
    ) {
        if self.x.is_empty() {
            self.x.push(model.embed_batch(batch));
        }
        let decoder = model.info.heads.decoder_stage();
        for (stage, view) in views.iter().enumerate().skip(self.x.len() - 1) {
            let x = &self.x[stage];
            let stream = model.info.heads.stage(stage).stream;
            let (len, mask) = (batch.len_at(stream), batch.mask.as_ref());
            let keys = match (&self.memory, stream) {
                (Some(memory), Stream::Cross) => Some(model.keys(view, memory, batch.len)),
                _ => None,
            };
            let (z, out) = match &keys {
                Some(keys) => model.cross_attention(stage, view, x, len, keys, mask),
                None => model.attention(stage, view, x, len, mask.filter(|_| stream != Stream::Decoder)),
            };
            let more = added(stage);
            let out = match &more {
                Some(more) => out + more,
                None => out,
            };
            let mut next = model.after_attention(stage, x, &out);
            if let (Some(begins), Some(target)) = (decoder, &batch.decoder)
                && begins == stage + 1
            {
                self.memory = Some(model.memory(&next));
                next = model.embed_target(&target.tokens);
            }
            self.x.push(next);
            self.out.push(out);
            self.z.push(z);
            self.keys.push(keys);
            self.added.push(more);
        }
    }
}

/// A base set with the views and states that follow from it.
#[derive(Debug)]
pub struct BaseSet {
    /// Per stage, the heads of the base set, ascending.
    heads: Vec<Vec<u32>>,
    /// Views per stage.
    pub views: Vec<AttnView>,
    /// States per batch.
    states: Vec<BaseState>,
}

impl BaseSet {
    /// The empty base set.
    #[must_use]
    pub fn empty(model: &Model, batches: usize) -> Self {
        let none = BaseCut::Removed(Vec::new(), None);
        Self {
            heads: vec![Vec::new(); model.blocks.len()],
            views: (0..model.blocks.len()).map(|l| model.view(l, &none)).collect(),
            states: (0..batches).map(|_| BaseState::default()).collect(),
        }
    }

    /// Moves to another base set, keeping every stage before the first that differs. `replacement` is b where
    /// it is the same for every batch; see [`Self::state_with`] where it isn't.
    pub fn move_to(
        &mut self,
        model: &Model,
        heads: &[Vec<u32>],
        keep: f64,
        replacement: Option<&Replacement>,
    ) {
        let Some(first) = (0..heads.len()).find(|&l| self.heads[l] != heads[l]) else { return };
        for (l, gone) in heads.iter().enumerate().skip(first) {
            if self.heads[l] == *gone {
                continue;
            }
            let cut = if keep == 0.0 {
                let constant = replacement.filter(|_| !gone.is_empty()).map(|b| b.output(model, l, gone));
                BaseCut::Removed(gone.clone(), constant)
            } else {
                BaseCut::Scaled(gone.clone(), keep)
            };
            self.views[l] = model.view(l, &cut);
            self.heads[l].clone_from(gone);
        }
        for state in &mut self.states {
            if !state.x.is_empty() {
                state.cut_back(first);
            }
        }
    }

    /// The state of batch `at`, computed as far as it is missing.
    pub fn state(&mut self, model: &Model, at: usize, batch: &DeviceBatch) -> (&BaseState, &[AttnView]) {
        self.state_with(model, at, batch, None)
    }

    /// [`Self::state`] where `tokens` is b of this batch's tokens. It must be the same b each time, as a state
    /// isn't computed again for another.
    pub fn state_with(
        &mut self,
        model: &Model,
        at: usize,
        batch: &DeviceBatch,
        tokens: Option<&Replacement>,
    ) -> (&BaseState, &[AttnView]) {
        let heads = &self.heads;
        let added = |layer: usize| {
            tokens.filter(|_| !heads[layer].is_empty()).map(|b| b.output(model, layer, &heads[layer]))
        };
        self.states[at].fill(model, &self.views, batch, added);
        (&self.states[at], &self.views)
    }

    /// Gives back the memory of batch `at`; it is computed anew when asked for again.
    pub fn forget(&mut self, at: usize) {
        self.states[at] = BaseState::default();
    }
}
