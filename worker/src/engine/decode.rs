//! Greedy decoding of ablated encoder-decoders, with a cache of keys and values: all subsets of a pass and all items
//! of a batch together, a token at a time. Heads are cut row by row, because every subset has decoded something else
//! by then and shares nothing but the memory.

use super::attend::attend;
use super::decoder::Keys;
use super::model::{AttnView, BaseCut, Model};
use super::pass::{Pass, Stopped};
use super::readout::LOGIT_BYTES;
use super::replace::Replacement;
use super::trie::{Cut, Trie};
use ablate_common::head::Stream;
use ablate_common::task::Item;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};

/// What decodes.
#[derive(Debug)]
pub struct Decoding<'a> {
    /// The pass whose subsets decode, with the batch, its base state and what replaces z.
    pub pass: &'a Pass<'a>,
    /// By stage the heads of the base set.
    pub removed: &'a [Vec<u32>],
    /// ξ of the base set's heads.
    pub keep: f64,
    /// The task's items.
    pub items: &'a [Item],
}

/// A stage of the decoder for some subsets.
struct Stage {
    at: usize,
    view: AttnView,
    /// ξ of each subset's heads `[subsets, 1, heads, 1]`; none where all are 1.
    gate: Option<Tensor>,
    /// Attention to the encoder: keys and values of the memories. Self-attention: those of the tokens so far,
    /// `[rows, heads, limit, head_dim]`.
    keys: Keys,
}

impl Decoding<'_> {
    /// What each of `subsets` subsets decodes: by subset and item of the batch, without the token that ends it.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn run(&self, trie: &Trie, subsets: usize, stop: &AtomicBool) -> Result<Vec<Vec<Vec<u32>>>, Stopped> {
        let (memory_of, memories) = self.pass.memories(trie, subsets, stop)?;
        let cuts = trie.paths(subsets);
        let mut out = vec![Vec::new(); subsets];
        for own in [false, true] {
            let group: Vec<usize> = (0..subsets).filter(|&s| memory_of[s].is_some() == own).collect();
            let memory = match (own, &memories) {
                (true, Some(memories)) => {
                    let pick: Vec<i64> =
                        group.iter().filter_map(|&s| memory_of[s]).map(|m| m as i64).collect();
                    Some(memories.index_select(0, &self.pass.model.indices(&pick)))
                }
                _ => self.pass.base.memory.as_ref().map(Tensor::shallow_clone),
            };
            let (Some(memory), false) = (memory, group.is_empty()) else { continue };
            let cuts: Vec<_> = group.iter().map(|&s| cuts[s].as_slice()).collect();
            let decoded = self.group(&memory.view([-1, self.pass.model.d_model()]), &cuts, stop)?;
            for (s, tokens) in group.into_iter().zip(decoded) {
                out[s] = tokens;
            }
        }
        Ok(out)
    }

    /// Subsets that read one memory, or each its own (`[memories · batch · len, d_model]`).
    fn group(
        &self,
        memory: &Tensor,
        cuts: &[&[(usize, &[Cut])]],
        stop: &AtomicBool,
    ) -> Result<Vec<Vec<Vec<u32>>>, Stopped> {
        let (model, batch) = (self.pass.model, self.pass.batch);
        let Some(seq2seq) = &model.info.details.seq2seq else { return Ok(Vec::new()) };
        let items = batch.items.len();
        let rows = cuts.len() * items;
        let limits: Vec<usize> =
            batch.items.iter().map(|&i| self.items[i as usize].decoded_at_most(model.info.context)).collect();
        let longest = limits.iter().copied().max().unwrap_or(0);
        let mut stages = self.stages(memory, cuts, rows as i64, longest as i64);
        let memories = memory.size()[0] / (batch.len * items as i64);
        let mask = batch.mask_for(memories);
        let mut out = vec![Vec::new(); rows];
        let mut open = vec![true; rows];
        let mut tokens = model.indices(&vec![i64::from(seq2seq.start); rows]);
        for at in 0..longest {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let mut x = model.embed_target_at(&tokens, at as i64);
            for stage in &mut stages {
                x = self.step(stage, &x, at as i64, mask.as_ref());
            }
            tokens = likeliest(model, &model.finish(&x));
            let mut chosen = vec![0i64; rows];
            tokens.to_device(Device::Cpu).copy_data(&mut chosen, rows);
            for (row, &token) in chosen.iter().enumerate() {
                let token = token as u32;
                open[row] &= !seq2seq.end.contains(&token);
                if open[row] {
                    out[row].push(token);
                    open[row] = out[row].len() < limits[row % items];
                }
            }
            if !open.contains(&true) {
                break;
            }
        }
        Ok(out.chunks(items).map(<[_]>::to_vec).collect())
    }

    /// The decoder's stages, with nothing decoded yet.
    fn stages(&self, memory: &Tensor, cuts: &[&[(usize, &[Cut])]], rows: i64, limit: i64) -> Vec<Stage> {
        let model = self.pass.model;
        let (h, dh) = (i64::from(model.info.n_heads), model.head_dim());
        let first = model.info.heads.decoder_stage().unwrap_or(model.blocks.len());
        (first..model.blocks.len())
            .map(|at| {
                let view = model.view(at, &BaseCut::Removed(Vec::new(), None));
                let keys = if model.info.heads.stage(at).stream == Stream::Cross {
                    model.keys(&view, memory, self.pass.batch.len)
                } else {
                    let empty = || Tensor::zeros([rows, h, limit, dh], (model.kind, model.device));
                    Keys { k: empty(), v: empty() }
                };
                Stage { at, view, gate: self.gate(at, cuts), keys }
            })
            .collect()
    }

    /// ξ of every head at a stage, subset by subset.
    fn gate(&self, at: usize, cuts: &[&[(usize, &[Cut])]]) -> Option<Tensor> {
        let model = self.pass.model;
        let h = model.info.n_heads as usize;
        let mut gate = vec![1.0; cuts.len() * h];
        for (own, cuts) in gate.chunks_mut(h).zip(cuts) {
            for &head in &self.removed[at] {
                own[head as usize] = self.keep;
            }
            for cut in cuts.iter().filter(|c| c.0 == at).flat_map(|c| c.1) {
                own[cut.head as usize] = cut.keep;
            }
        }
        gate.iter().any(|&g| g != 1.0).then(|| {
            let gate = Tensor::from_slice(&gate).view([cuts.len() as i64, 1, h as i64, 1]);
            gate.to_kind(model.kind).to_device(model.device)
        })
    }

    /// One stage for the token at position `at` of every row: `x [rows, d_model]`.
    fn step(&self, stage: &mut Stage, x: &Tensor, at: i64, mask: Option<&Tensor>) -> Tensor {
        let model = self.pass.model;
        let (rows, h, dh) = (x.size()[0], i64::from(model.info.n_heads), model.head_dim());
        let (view, block) = (&stage.view, &model.blocks[stage.at]);
        let z = if model.info.heads.stage(stage.at).stream == Stream::Cross {
            model.cross_mixtures(stage.at, view, x, 1, &stage.keys, mask)
        } else {
            let read = model.before_attention(stage.at, x);
            let qkv = read.linear(&view.qkv, view.qkv_bias.as_ref()).view([rows, 3, h, 1, dh]);
            stage.keys.k.narrow(2, at, 1).copy_(&qkv.select(1, 1));
            stage.keys.v.narrow(2, at, 1).copy_(&qkv.select(1, 2));
            let (k, v) = (stage.keys.k.narrow(2, 0, at + 1), stage.keys.v.narrow(2, 0, at + 1));
            let bias = model.relative(stage.at, &view.kept, at, 1, at + 1);
            attend(model, stage.at, &qkv.select(1, 0), &k, &v, bias.as_ref(), false)
        };
        let z = z.reshape([rows, h, dh]);
        let z = match &stage.gate {
            None => z,
            Some(gate) => {
                let subsets = gate.size()[0];
                let kept = z.view([subsets, rows / subsets, h, dh]) * gate;
                let with = match self.pass.replacement {
                    Some(b) => kept + (1.0 - gate) * self.at_position(b, stage.at, at),
                    None => kept,
                };
                with.view([rows, h, dh])
            }
        };
        let out = z.view([rows, h * dh]).linear(&block.wo, block.wo_bias.as_ref());
        model.after_attention(stage.at, x, &out)
    }

    /// b of all heads at one position of a decoder's stage, `[1 or batch, heads, head_dim]`. Behind the end of what
    /// it was measured on (for donors, of the item's own target) its last position stands for all.
    fn at_position(&self, b: &Replacement, stage: usize, at: i64) -> Tensor {
        let batch = self.pass.batch;
        match b {
            Replacement::Constant(b) => b[stage].unsqueeze(0),
            Replacement::Position(b) => b[stage].narrow(0, at.min(b[stage].size()[0] - 1), 1),
            Replacement::Tokens(b) => {
                let len = batch.len_at(Stream::Decoder);
                let end = |item: u32| self.items[item as usize].decoder.len() as i64 - 1;
                let rows: Vec<i64> =
                    (0..).zip(&batch.items).map(|(row, &item)| row * len + at.min(end(item))).collect();
                b[stage].index_select(0, &self.pass.model.indices(&rows))
            }
        }
    }
}

/// The token with the highest logit for each state `x [rows, d_model]`, in slices.
fn likeliest(model: &Model, x: &Tensor) -> Tensor {
    let step = (LOGIT_BYTES / (i64::from(model.info.target_vocab()) * 8)).max(1);
    let mut parts = Vec::new();
    let mut at = 0;
    while at < x.size()[0] {
        let n = step.min(x.size()[0] - at);
        if let Some(logits) = model.logits(&x.narrow(0, at, n)) {
            parts.push(logits.to_kind(widest(model.kind)).argmax(-1, false));
        }
        at += n;
    }
    Tensor::cat(&parts, 0)
}

/// f32 at least.
fn widest(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}
