//! One pass: the trie of a chunk's subsets over one batch. The batch of rows grows layer by layer as
//! subsets leave the shared prefix, and shrinks as nodes are no longer needed.

use super::base::{BaseState, DeviceBatch};
use super::model::{AttnView, Model};
use super::replace::Replacement;
use super::trie::{Node, Trie};
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
    /// What the base set leaves of each layer.
    pub views: &'a [AttnView],
    /// b of every head; none: 0.
    pub replacement: Option<&'a Replacement>,
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
        let (model, tokens, d) = (self.model, self.batch.tokens(), self.model.d_model());
        let layers = model.blocks.len();
        let mut finished = Vec::new();
        if !trie.unchanged.is_empty() {
            let x = self.at_scored(self.base.x[layers].view([1, tokens, d]));
            finished.push(Finished { subsets: vec![trie.unchanged.clone()], x });
        }
        let Some(first) = trie.first_layer() else { return Ok(finished) };
        let mut live: Vec<usize> = Vec::new();
        let mut rows: Option<Tensor> = None;
        for layer in first..layers {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let (mut parts_x, mut parts_out, mut next) = (Vec::new(), Vec::new(), Vec::new());
            let attended = rows.take().map(|x| {
                let copies = live.len() as i64;
                let mask = self.batch.mask_for(copies);
                let flat = x.view([copies * tokens, d]);
                let (z, out) =
                    model.attention(layer, &self.views[layer], &flat, self.batch.len, mask.as_ref());
                let out = out.view([copies, tokens, d]);
                let out = match &self.base.added[layer] {
                    Some(added) => out + added,
                    None => out,
                };
                (x, z.view([copies, tokens, -1]), out)
            });
            if let Some((x, _, out)) = &attended {
                let stay: Vec<i64> = (0..live.len())
                    .filter(|&r| trie.nodes[live[r]].lives_past(layer))
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
            for run in runs(&trie.nodes, trie.starting_at(layer)) {
                let (x, z, out) = match trie.nodes[run.start].parent {
                    None => {
                        let b = self.base;
                        (b.x[layer].shallow_clone(), b.z[layer].shallow_clone(), b.out[layer].shallow_clone())
                    }
                    Some(p) => match (live.iter().position(|&n| n == p), &attended) {
                        (Some(row), Some((x, z, out))) => {
                            (x.get(row as i64), z.get(row as i64), out.get(row as i64))
                        }
                        // A parent lives at least up to its last child's layer.
                        _ => unreachable!("a parent's rows are live at its child's layer"),
                    },
                };
                let count = run.len() as i64;
                parts_out.push(self.children(layer, &trie.nodes[run.clone()], &z, &out));
                parts_x.push(x.unsqueeze(0).expand([count, tokens, d], false));
                next.extend(run);
            }
            let (mut x, mut out) = (joined(parts_x), joined(parts_out));
            drop(attended);
            if layer + 1 == layers {
                (x, out) = (self.at_scored(x), self.at_scored(out));
            }
            let shape = x.size();
            let after = model.after_attention(layer, &x.reshape([-1, d]), &out.reshape([-1, d]));
            rows = Some(after.view(shape.as_slice()));
            live = next;
        }
        if let Some(x) = rows {
            finished
                .push(Finished { subsets: live.iter().map(|&n| trie.nodes[n].ends.clone()).collect(), x });
        }
        Ok(finished)
    }

    fn at_scored(&self, x: Tensor) -> Tensor {
        self.batch.at_scored(x)
    }

    /// Attention output of nodes that start here from one parent: out − Σ (1 − ξ)(z_h − b_h) W_O.
    /// `z [tokens, kept · head_dim]`, `out [tokens, d_model]` → `[nodes, tokens, d_model]`.
    fn children(&self, layer: usize, nodes: &[Node], z: &Tensor, out: &Tensor) -> Tensor {
        let (model, dh) = (self.model, self.model.head_dim());
        let kept = &self.views[layer].kept;
        let block = &model.blocks[layer];
        let z = z.view([-1, kept.len() as i64, dh]);
        // (z_h − b_h)(1 − ξ) of the given cuts, `[cuts, tokens, head_dim]`, and their W_O slices.
        let parts = |nodes: &[Node]| {
            let cuts: Vec<_> = nodes.iter().flat_map(|n| n.cuts.iter()).collect();
            let place: Vec<i64> =
                cuts.iter().map(|c| kept.iter().position(|&k| k == c.head).unwrap_or(0) as i64).collect();
            let heads = model.indices(&cuts.iter().map(|c| i64::from(c.head)).collect::<Vec<_>>());
            let mut zs = z.index_select(1, &model.indices(&place));
            if let Some(b) = self.replacement {
                zs = b.subtract(layer, zs, &heads, self.batch.len);
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

/// Sum over the tokens that aren't padding, in f64: `z [batch · len, width]` → `[width]`.
pub fn sum_real(z: &Tensor, batch: &DeviceBatch) -> Tensor {
    let weights = batch.real.view([1, -1]);
    weights.matmul(&z.to_kind(Kind::Double)).squeeze_dim(0)
}
