//! One pass: the trie of a chunk's subsets over one batch. The batch of rows grows stage by stage as
//! subsets leave the shared prefix, and shrinks as nodes are no longer needed. In an encoder-decoder, rows that
//! left it in the encoder have a memory of their own; all others read the base state's.

use super::base::{BaseState, DeviceBatch};
use super::decoder::Keys;
use super::model::{AttnView, Model};
use super::replace::Replacement;
use super::trie::{Intervention, Node, Trie};
use ablate_common::head::Stream;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// Final rows of a pass: subsets and the residual stream after the last layer.
#[derive(Debug)]
pub struct Finished {
    /// For each row the subsets that end in it.
    pub subsets: Vec<Vec<usize>>,
    /// `[rows, positions, d_model]`: scored positions, or all where none are scored.
    pub x: Tensor,
}

/// Everything a pass reads.
#[derive(Debug)]
pub struct Pass<'a> {
    /// The model.
    pub model: &'a Model,
    /// The batch.
    pub batch: &'a DeviceBatch,
    /// The batch under the base set.
    pub base: &'a BaseState,
    /// What the base set leaves of each stage.
    pub views: &'a [AttnView],
    /// b of every head; none: 0.
    pub replacement: Option<&'a Replacement>,
}

/// See [`Pass::memories`].
pub type Memories = (Vec<Option<usize>>, Option<Tensor>);

/// The rows of a pass between two stages.
struct Rows {
    /// Nodes that have rows, in the order of the rows.
    live: Vec<usize>,
    /// Their residual stream `[nodes, tokens, d_model]`; none while no node lives.
    x: Option<Tensor>,
    /// What the encoder made of each row that it ended with: `[memories, tokens, d_model]`.
    memories: Option<Tensor>,
    /// By node its place among the memories; none: the base state's memory.
    memory_of: Vec<Option<usize>>,
}

impl Rows {
    fn new(trie: &Trie) -> Self {
        Self { live: Vec::new(), x: None, memories: None, memory_of: vec![None; trie.nodes.len()] }
    }
}

/// The pass was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl Pass<'_> {
    /// Runs the pass.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn run(&self, trie: &Trie, stop: &AtomicBool) -> Result<Vec<Finished>, Stopped> {
        self.run_seen(trie, stop, |_, _, _| {})
    }

    /// [`Self::run`], showing `see` after each stage its number, the nodes that have rows, and their residual stream `[nodes, tokens,
    /// d_model]`, of the last stage at scored positions only.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn run_seen(
        &self,
        trie: &Trie,
        stop: &AtomicBool,
        mut see: impl FnMut(usize, &[usize], &Tensor),
    ) -> Result<Vec<Finished>, Stopped> {
        let stages = self.model.blocks.len();
        let mut finished = Vec::new();
        if !trie.unchanged.is_empty() {
            let d = self.model.d_model();
            let x = self.at_scored(self.base.x[stages].view([1, self.batch.final_tokens(), d]));
            finished.push(Finished { subsets: vec![trie.unchanged.clone()], x });
        }
        let Some(first) = trie.first_stage() else { return Ok(finished) };
        let mut rows = Rows::new(trie);
        for stage in first..stages {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            if self.model.info.heads.decoder_stage() == Some(stage) {
                self.enter_decoder(&mut rows);
            }
            self.step(trie, stage, &mut rows);
            if let Some(x) = &rows.x {
                see(stage, &rows.live, x);
            }
        }
        if let Some(x) = rows.x {
            let subsets = rows.live.iter().map(|&n| trie.nodes[n].ends.clone()).collect();
            finished.push(Finished { subsets, x });
        }
        Ok(finished)
    }

    /// The memories of `subsets` subsets: for each its place among those that aren't the base state's, which come
    /// beside, `[memories, batch · len, d_model]`.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn memories(&self, trie: &Trie, subsets: usize, stop: &AtomicBool) -> Result<Memories, Stopped> {
        let mut of = vec![None; subsets];
        let Some(encoder) = self.model.info.heads.decoder_stage() else { return Ok((of, None)) };
        // What a subset does to the encoder alone.
        let interventions: Vec<Intervention> = trie
            .paths(subsets)
            .iter()
            .map(|path| Intervention {
                stages: path.iter().filter(|p| p.0 < encoder).map(|p| (p.0, p.1.to_vec())).collect(),
            })
            .collect();
        let trie = Trie::new(&interventions);
        let Some(first) = trie.first_stage() else { return Ok((of, None)) };
        let mut rows = Rows::new(&trie);
        for stage in first..encoder {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            self.step(&trie, stage, &mut rows);
        }
        for (row, &node) in rows.live.iter().enumerate() {
            trie.nodes[node].ends.iter().for_each(|&s| of[s] = Some(row));
        }
        Ok((of, rows.x.map(|x| self.model.memory(&x))))
    }

    /// Runs one stage: rows die, are born, and go on.
    fn step(&self, trie: &Trie, stage: usize, rows: &mut Rows) {
        let (model, d) = (self.model, self.model.d_model());
        let tokens = self.batch.tokens_at(model.info.heads.stage(stage).stream);
        let (mut parts_x, mut parts_out, mut next) = (Vec::new(), Vec::new(), Vec::new());
        let live = std::mem::take(&mut rows.live);
        let attended = rows.x.take().map(|x| {
            let (z, out) = self.attend(stage, &x, &live, rows);
            let copies = live.len() as i64;
            let out = out.view([copies, tokens, d]);
            let out = match &self.base.added[stage] {
                Some(added) => out + added,
                None => out,
            };
            (x, z.view([copies, tokens, -1]), out)
        });
        if let Some((x, _, out)) = &attended {
            let stay: Vec<i64> = (0..live.len())
                .filter(|&r| trie.nodes[live[r]].lives_past(stage))
                .map(|r| r as i64)
                .collect();
            next.extend(stay.iter().map(|&r| live[r as usize]));
            if stay.len() == live.len() {
                parts_x.push(x.shallow_clone());
                parts_out.push(out.shallow_clone());
            } else if !stay.is_empty() {
                let stay = model.indices(&stay);
                parts_x.push(x.index_select(0, &stay));
                parts_out.push(out.index_select(0, &stay));
            }
        }
        for run in runs(&trie.nodes, trie.starting_at(stage)) {
            let parent = trie.nodes[run.start].parent;
            let (x, z, out) = match parent {
                None => {
                    let b = self.base;
                    (b.x[stage].shallow_clone(), b.z[stage].shallow_clone(), b.out[stage].shallow_clone())
                }
                Some(p) => match (live.iter().position(|&n| n == p), &attended) {
                    (Some(row), Some((x, z, out))) => {
                        (x.get(row as i64), z.get(row as i64), out.get(row as i64))
                    }
                    // A parent lives at least up to its last child's stage.
                    _ => unreachable!("a parent's rows are live at its child's stage"),
                },
            };
            let count = run.len() as i64;
            parts_out.push(self.children(stage, &trie.nodes[run.clone()], &z, &out));
            parts_x.push(x.unsqueeze(0).expand([count, tokens, d], false));
            for node in run {
                rows.memory_of[node] = parent.and_then(|p| rows.memory_of[p]);
                next.push(node);
            }
        }
        let (mut x, mut out) = (joined(parts_x), joined(parts_out));
        drop(attended);
        if stage + 1 == model.blocks.len() {
            (x, out) = (self.at_scored(x), self.at_scored(out));
        }
        let shape = x.size();
        let after = model.after_attention(stage, &x.reshape([-1, d]), &out.reshape([-1, d]));
        rows.x = Some(after.view(shape.as_slice()));
        rows.live = next;
    }

    /// What the encoder made of each live row becomes a memory of its own, and the rows go on from the decoder's
    /// first residual stream, which no head has touched.
    fn enter_decoder(&self, rows: &mut Rows) {
        let Some(x) = rows.x.take() else { return };
        let begins = &self.base.x[self.model.info.heads.decoder_stage().unwrap_or(0)];
        let copies = rows.live.len() as i64;
        for (memory, &node) in rows.live.iter().enumerate() {
            rows.memory_of[node] = Some(memory);
        }
        rows.memories = Some(self.model.memory(&x));
        rows.x = Some(begins.unsqueeze(0).expand([copies, -1, -1], false));
    }

    /// Attention of a stage for the `live` rows `x [rows, tokens, d_model]`.
    fn attend(&self, stage: usize, x: &Tensor, live: &[usize], rows: &Rows) -> (Tensor, Tensor) {
        let (model, view, d) = (self.model, &self.views[stage], self.model.d_model());
        let stream = model.info.heads.stage(stage).stream;
        let len = self.batch.len_at(stream);
        if stream != Stream::Cross {
            let copies = live.len() as i64;
            let mask = self.batch.mask_for(copies).filter(|_| stream != Stream::Decoder);
            return model.attention(stage, view, &x.reshape([-1, d]), len, mask.as_ref());
        }
        let place = |own: bool| -> Vec<usize> {
            (0..live.len()).filter(|&r| rows.memory_of[live[r]].is_some() == own).collect()
        };
        let mut parts = Vec::new();
        for (own, places) in [(false, place(false)), (true, place(true))] {
            if places.is_empty() {
                continue;
            }
            let memories: Vec<usize> = places.iter().filter_map(|&r| rows.memory_of[live[r]]).collect();
            let x = if places.len() == live.len() {
                x.reshape([-1, d])
            } else {
                x.index_select(0, &indices(model, &places)).view([-1, d])
            };
            let (keys, mask) = if own {
                (self.own_keys(view, rows, &memories), self.batch.mask_for(places.len() as i64))
            } else {
                (None, self.batch.mask_for(1))
            };
            let Some(keys) = keys.as_ref().or(self.base.keys[stage].as_ref()) else {
                unreachable!("a decoder's rows have a memory");
            };
            let (z, out) = model.cross_attention(stage, view, &x, len, keys, mask.as_ref());
            parts.push((places, z, out));
        }
        if let [(_, z, out)] = parts.as_slice() {
            return (z.shallow_clone(), out.shallow_clone());
        }
        // Back to the rows' own order.
        let mut order: Vec<(usize, usize)> =
            parts.iter().flat_map(|p| p.0.iter().copied()).enumerate().map(|(at, row)| (row, at)).collect();
        order.sort_unstable();
        let order = indices(model, &order.into_iter().map(|(_, at)| at).collect::<Vec<_>>());
        let back = |of: fn(&(Vec<usize>, Tensor, Tensor)) -> &Tensor| {
            let all = Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
            let (tokens, width) = all.size2().unwrap_or_default();
            let n = live.len() as i64;
            all.view([n, tokens / n, width]).index_select(0, &order).view([tokens, width])
        };
        (back(|p| &p.1), back(|p| &p.2))
    }

    /// Keys and values of rows with the given memories, each memory's computed once.
    fn own_keys(&self, view: &AttnView, rows: &Rows, memories: &[usize]) -> Option<Keys> {
        let (model, d) = (self.model, self.model.d_model());
        let mut used = memories.to_vec();
        used.sort_unstable();
        used.dedup();
        let memory = rows.memories.as_ref()?.index_select(0, &indices(model, &used));
        let keys = model.keys(view, &memory.view([-1, d]), self.batch.len);
        let pick: Vec<usize> = memories.iter().filter_map(|m| used.binary_search(m).ok()).collect();
        Some(keys.pick(&indices(model, &pick), self.batch.items.len() as i64))
    }

    fn at_scored(&self, x: Tensor) -> Tensor {
        self.batch.at_scored(x)
    }

    /// Attention output of nodes that start here from one parent: out − Σ (1 − ξ)(z_h − b_h) W_O.
    /// `z [tokens, kept · head_dim]`, `out [tokens, d_model]` → `[nodes, tokens, d_model]`.
    pub(super) fn children(&self, stage: usize, nodes: &[Node], z: &Tensor, out: &Tensor) -> Tensor {
        let (model, dh) = (self.model, self.model.head_dim());
        let kept = &self.views[stage].kept;
        let block = &model.blocks[stage];
        let len = self.batch.len_at(model.info.heads.stage(stage).stream);
        let z = z.view([-1, kept.len() as i64, dh]);
        // (z_h − b_h)(1 − ξ) of the given cuts, `[cuts, tokens, head_dim]`, and their W_O slices.
        let parts = |nodes: &[Node]| {
            let cuts: Vec<_> = nodes.iter().flat_map(|n| n.cuts.iter()).collect();
            let place: Vec<i64> =
                cuts.iter().map(|c| kept.iter().position(|&k| k == c.head).unwrap_or(0) as i64).collect();
            let heads = model.indices(&cuts.iter().map(|c| i64::from(c.head)).collect::<Vec<_>>());
            let mut zs = z.index_select(1, &model.indices(&place));
            if let Some(b) = self.replacement {
                zs = b.subtract(stage, zs, &heads, len);
            }
            if cuts.iter().any(|c| c.keep != 0.0) {
                let factor: Vec<f64> = cuts.iter().map(|c| 1.0 - c.keep).collect();
                zs *= Tensor::from_slice(&factor).to_kind(model.kind).to_device(model.device).unsqueeze(-1);
            }
            (zs, block.wo_heads.index_select(0, &heads))
        };
        if nodes.iter().all(|n| n.cuts.len() == 1) {
            let (zs, wo) = parts(nodes);
            return out.unsqueeze(0) - zs.transpose(0, 1).bmm(&wo);
        }
        let each: Vec<Tensor> = nodes
            .iter()
            .map(|n| {
                if n.cuts.is_empty() {
                    return out.shallow_clone();
                }
                let (zs, wo) = parts(std::slice::from_ref(n));
                let k = n.cuts.len() as i64;
                out - zs.reshape([-1, k * dh]).matmul(&wo.view([k * dh, -1]))
            })
            .collect();
        Tensor::stack(&each, 0)
    }
}

/// Indices on the model's device.
fn indices(model: &Model, values: &[usize]) -> Tensor {
    model.indices(&values.iter().map(|&v| v as i64).collect::<Vec<_>>())
}

/// The parts on top of each other; a single part is not copied.
fn joined(mut parts: Vec<Tensor>) -> Tensor {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => Tensor::cat(&parts, 0),
    }
}

/// Splits nodes into runs that share a parent and a number of cuts of one or not one.
fn runs(nodes: &[Node], range: std::ops::Range<usize>) -> Vec<std::ops::Range<usize>> {
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    for i in range {
        match out.last_mut() {
            Some(run)
                if nodes[run.start].parent == nodes[i].parent
                    && (nodes[run.start].cuts.len() == 1) == (nodes[i].cuts.len() == 1) =>
            {
                run.end = i + 1;
            }
            _ => out.push(i..i + 1),
        }
    }
    out
}

/// Sum over the tokens that aren't padding (`real [batch, len]`), in f64: `z [batch · len, width]` → `[width]`.
pub fn sum_real(z: &Tensor, real: &Tensor) -> Tensor {
    let weights = real.view([1, -1]);
    weights.matmul(&z.to_kind(Kind::Double)).squeeze_dim(0)
}
