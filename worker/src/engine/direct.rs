//! Direct effects: subsets whose heads are removed while everything downstream stays as it was in the unablated run. Every later
//! sublayer adds to the residual stream what it added there, whatever it would read now; norms that stand in the stream itself, and the
//! final one, are computed of the changed stream. No token sees another then, so that only scored positions are computed.
//!
//! Where norms stand before the sublayers the final stream is the unablated one plus (ẑ − z) W_O (or, where attention's output has a norm
//! of its own, the change of that). In parallel layers the feed-forward part beside an attention isn't downstream of it, and neither
//! changes. Heads of an encoder whose decoder is downstream have no direct effect: their only way is through attention to the encoder.

use super::arch::NormPlace;
use super::model::Model;
use super::pass::{Finished, Pass, Stopped};
use super::trie::{Cut, Node, Trie};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;

/// Subsets that have left the unablated stream, with theirs: `[subsets, positions, d_model]`. Before norms it is kept as the
/// difference from the unablated one, which nothing downstream changes.
struct Changed {
    subsets: Vec<usize>,
    x: Option<Tensor>,
}

impl Pass<'_> {
    /// Runs `subsets` subsets with everything downstream frozen. The base state must be the unablated one.
    ///
    /// # Errors
    /// Where `stop` was set meanwhile.
    pub fn direct(&self, trie: &Trie, subsets: usize, stop: &AtomicBool) -> Result<Vec<Finished>, Stopped> {
        let (model, stages) = (self.model, self.model.blocks.len());
        let begins = model.info.heads.decoder_stage().unwrap_or(0);
        let mut changed = Changed { subsets: Vec::new(), x: None };
        let paths = trie.paths(subsets);
        for stage in begins..stages {
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let here: Vec<(usize, &[Cut])> = (0..subsets)
                .filter_map(|s| paths[s].iter().find(|p| p.0 == stage).map(|p| (s, p.1)))
                .collect();
            self.pass_stage(stage, &here, &mut changed);
        }
        let last = self.scored(&self.base.x[stages]);
        let unchanged: Vec<usize> = (0..subsets).filter(|s| !changed.subsets.contains(s)).collect();
        let mut finished = Vec::new();
        if !unchanged.is_empty() {
            finished.push(Finished { subsets: vec![unchanged], x: last.shallow_clone() });
        }
        if let Some(x) = changed.x {
            let x = if model.arch.place == NormPlace::Post { x } else { x + last };
            finished.push(Finished { subsets: changed.subsets.into_iter().map(|s| vec![s]).collect(), x });
        }
        Ok(finished)
    }

    /// The stream of the changed subsets behind a stage, of which those `here` change its attention.
    fn pass_stage(&self, stage: usize, here: &[(usize, &[Cut])], changed: &mut Changed) {
        let model = self.model;
        let out = self.scored(&self.base.out[stage]);
        // What attention adds for those that change it, `[here, positions, d_model]`.
        let cut = (!here.is_empty()).then(|| {
            let nodes: Vec<Node> = here
                .iter()
                .map(|&(_, cuts)| Node { parent: None, stage, cuts: cuts.to_vec(), ends: Vec::new(), last_child: None })
                .collect();
            self.batch.at_scored(self.children(stage, &nodes, &self.base.z[stage], &self.base.out[stage]))
        });
        let post = model.arch.place == NormPlace::Post;
        let x = self.scored(&self.base.x[stage]);
        // Those that begin to differ here stand behind those that did before.
        let new: Vec<usize> = here.iter().map(|h| h.0).filter(|s| !changed.subsets.contains(s)).collect();
        let fresh = (!new.is_empty()).then(|| {
            let x = if post { x.shallow_clone() } else { x.zeros_like() };
            let size = x.size();
            x.expand([new.len() as i64, size[1], size[2]], false)
        });
        let parts: Vec<Tensor> = changed.x.take().into_iter().chain(fresh).collect();
        changed.subsets.extend(&new);
        if parts.is_empty() {
            return;
        }
        let streams = Tensor::cat(&parts, 0);
        // What attention adds, for each: as it was, or cut.
        let mut rows: Vec<i64> = vec![0; changed.subsets.len()];
        for (k, (s, _)) in here.iter().enumerate() {
            if let Some(at) = changed.subsets.iter().position(|c| c == s) {
                rows[at] = k as i64 + 1;
            }
        }
        let added = Tensor::cat(&std::iter::once(&out).chain(&cut).collect::<Vec<_>>(), 0);
        changed.x = Some(if post {
            let own = added.index_select(0, &model.indices(&rows));
            model.frozen_after(stage, &x, &out, &streams, &own)
        } else if cut.is_some() {
            let added = model.attention_added(stage, &added);
            let change = &added - added.narrow(0, 0, 1);
            streams + change.index_select(0, &model.indices(&rows))
        } else {
            streams
        });
    }

    /// The scored positions of `t [batch · len, width]`: `[1, positions, width]`.
    fn scored(&self, t: &Tensor) -> Tensor {
        self.batch.at_scored(t.unsqueeze(0))
    }
}

impl Model {
    /// What an attention's output `out` adds to the residual stream: behind the norm of its own, where it has one.
    fn attention_added(&self, stage: usize, out: &Tensor) -> Tensor {
        match &self.blocks[stage].post_attn_norm {
            Some(norm) => self.norm(norm, out),
            None => out.shallow_clone(),
        }
    }
}
