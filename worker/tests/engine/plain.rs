//! A plain loop of whole forward passes with masked z. It shares the layers' arithmetic with the engine but none of its sharing:
//! no trie, no base state, no sliced weights, one item at a time, no padding.

use super::made::{Case, HEADS, LAYERS};
use ablate_common::head::HeadIx;
use ablate_common::plan::{Ablation, Pool};
use ablate_common::task::{Item, Prepared, Scope, TaskKind};
use ablate_worker::engine::model::{BaseCut, Model};
use ablate_worker::engine::score::host;
use tch::{Kind, Tensor};

/// The plain loop: scores of `subset` on every example of `scope`, column by column.
pub struct Loop<'a> {
    pub model: &'a Model,
    pub prepared: &'a Prepared,
    pub case: &'a Case,
}

impl Loop<'_> {
    /// z of each layer (unablated) and the final residual stream of one item; `b [len, heads, head_dim]` of
    /// each layer.
    fn forward(&self, item: &Item, subset: &[HeadIx], b: Option<&[Tensor]>) -> (Vec<Tensor>, Tensor) {
        let m = self.model;
        let tokens: Vec<i64> = item.tokens.iter().map(|&t| i64::from(t)).collect();
        let len = tokens.len() as i64;
        let mut x = m.embed(&Tensor::from_slice(&tokens).view([1, len]));
        let mut zs = Vec::new();
        for (l, block) in m.blocks.iter().enumerate() {
            let view = m.view(l, &BaseCut::Removed(Vec::new(), None));
            let (z, _) = m.attention(l, &view, &x, len, None);
            let (h, dh) = (i64::from(HEADS), m.head_dim());
            let new = z.view([len, h, dh]).copy();
            for ix in subset.iter().filter(|ix| ix.0 / HEADS == l as u32) {
                let head = i64::from(ix.0 % HEADS);
                let mut slot = new.select(1, head);
                match self.case.ablation {
                    Ablation::Zero => drop(slot.zero_()),
                    Ablation::Scale { scale } => drop(slot.g_mul_scalar_(scale)),
                    Ablation::Mean { .. } | Ablation::Resample { .. } | Ablation::Optimal { .. } => {
                        slot.copy_(&b.unwrap()[l].select(1, head));
                    }
                }
            }
            let out = new.view([len, h * dh]).linear(&block.wo, block.wo_bias.as_ref());
            x = m.after_attention(l, &x, &out);
            zs.push(z.view([len, h, dh]));
        }
        (zs, m.finish(&x))
    }

    /// b of every item, by layer.
    pub fn replacements(&self) -> Option<Vec<Vec<Tensor>>> {
        let source = self.case.reference.as_ref().unwrap_or(self.prepared);
        let each: Vec<Vec<Tensor>> = source.items.iter().map(|i| self.forward(i, &[], None).0).collect();
        let pool = match self.case.ablation {
            // Fitted constants aren't asked of this loop.
            Ablation::Zero | Ablation::Scale { .. } | Ablation::Optimal { .. } => return None,
            Ablation::Mean { pool } => pool,
            Ablation::Resample { .. } => {
                let of = |(item, &donor): (&Item, &u32)| {
                    let last = source.items[donor as usize].tokens.len() - 1;
                    let at: Vec<i64> = (0..item.tokens.len()).map(|p| p.min(last) as i64).collect();
                    each[donor as usize].iter().map(|z| z.index_select(0, &Tensor::from_slice(&at))).collect()
                };
                return Some(self.prepared.items.iter().zip(&self.case.donors).map(of).collect());
            }
        };
        let means: Vec<Tensor> = (0..LAYERS as usize)
            .map(|l| match pool {
                Pool::Tokens => Tensor::cat(&each.iter().map(|z| &z[l]).collect::<Vec<_>>(), 0).mean_dim(
                    [0i64].as_slice(),
                    false,
                    None::<Kind>,
                ),
                Pool::Position => {
                    let longest = each.iter().map(|z| z[l].size()[0]).max().unwrap();
                    let at = |t: i64| {
                        let here: Vec<Tensor> =
                            each.iter().filter(|z| z[l].size()[0] > t).map(|z| z[l].get(t)).collect();
                        Tensor::stack(&here, 0).mean_dim([0i64].as_slice(), false, None::<Kind>)
                    };
                    Tensor::stack(&(0..longest).map(at).collect::<Vec<_>>(), 0)
                }
            })
            .collect();
        let of = |item: &Item| -> Vec<Tensor> {
            let len = item.tokens.len() as i64;
            let one = |m: &Tensor| match pool {
                Pool::Tokens => m.unsqueeze(0).expand([len, -1, -1], false),
                Pool::Position => m.narrow(0, 0, len),
            };
            means.iter().map(one).collect()
        };
        Some(self.prepared.items.iter().map(of).collect())
    }

    pub fn scores(&self, subset: &[HeadIx], scope: Scope, b: Option<&[Vec<Tensor>]>) -> Vec<Vec<f64>> {
        let all = self.prepared.items.iter().enumerate();
        let finals: Vec<Tensor> =
            all.map(|(i, item)| self.forward(item, subset, b.map(|b| b[i].as_slice())).1).collect();
        let examples = self.prepared.examples_in(scope);
        let mut columns = vec![Vec::new(); self.prepared.kind.columns().len()];
        for e in examples {
            let e = &self.prepared.examples[e as usize];
            let x = &finals[e.a as usize];
            match self.prepared.kind {
                TaskKind::Similarity => {
                    let pool = |x: &Tensor| x.mean_dim([0i64].as_slice(), false, None::<Kind>);
                    let (u, v) = (pool(x), pool(&finals[e.b as usize]));
                    columns[0].push(host(&(u.dot(&v) / (u.norm() * v.norm())))[0]);
                }
                kind => {
                    let logits = x.matmul(&self.model.unembed.as_ref().unwrap().transpose(0, 1));
                    let p = logits.log_softmax(-1, None::<Kind>);
                    let (mut nll, mut correct) = (0.0, 0.0);
                    for s in &self.prepared.items[e.a as usize].scored {
                        let (t, target) = (i64::from(s.position), i64::from(s.target));
                        if kind == TaskKind::Ioi {
                            let diff = logits.double_value(&[t, target])
                                - logits.double_value(&[t, i64::from(s.foil)]);
                            columns[0].push(diff);
                        }
                        nll -= p.double_value(&[t, target]);
                        correct +=
                            f64::from(u8::from(logits.get(t).argmax(0, false).int64_value(&[]) == target));
                    }
                    if kind != TaskKind::Ioi {
                        columns[0].push(nll);
                        columns[1].push(correct);
                    }
                }
            }
        }
        columns
    }
}
