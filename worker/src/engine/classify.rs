//! Labels of whole texts: by a model's classification head, or by a linear probe of its unablated embedding.

use super::base::{BaseSet, DeviceBatch};
use super::model::Model;
use super::readout::host;
use ablate_common::stats::logistic::{self, Fitted};
use ablate_common::task::{Prepared, Probe};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// A model's own head.
#[derive(Debug)]
pub struct ClassifierHead {
    /// Transform of the state: matrix `[d_model, d_model]`, bias, and whether tanh follows (or else max(x, 0)).
    pub dense: Option<(Tensor, Tensor, bool)>,
    /// Matrix to the labels `[labels, d_model]`.
    pub out: Tensor,
    /// Its bias `[labels]`.
    pub bias: Option<Tensor>,
}

impl ClassifierHead {
    /// Logits of states `x [.., d_model]`: `[.., labels]`.
    fn logits(&self, x: &Tensor) -> Tensor {
        let x = match &self.dense {
            None => x.shallow_clone(),
            Some((weight, bias, tanh)) => {
                let hidden = x.linear(weight, Some(bias));
                if *tanh { hidden.tanh() } else { hidden.relu() }
            }
        };
        x.linear(&self.out, self.bias.as_ref())
    }
}

/// Regularisation of a probe: scikit-learn's default.
const C: f64 = 1.0;

/// A fitted probe on a device, in f64.
#[derive(Debug)]
pub struct FittedProbe {
    /// `[labels, d_model]`.
    weight: Tensor,
    /// `[labels]`.
    bias: Tensor,
}

/// Why there is no probe.
#[derive(Debug)]
pub enum NoProbe {
    /// Told to stop.
    Stopped,
    /// The fit failed.
    Failed(String),
}

impl FittedProbe {
    /// Fits a probe to the unablated embeddings of its items, batch by batch. The same plan on the same device
    /// class gives the same bits.
    ///
    /// # Errors
    /// See [`NoProbe`].
    pub fn fit(model: &Model, task: &Prepared, probe: &Probe, stop: &AtomicBool) -> Result<Self, NoProbe> {
        let width = model.d_model() as usize;
        let mut x = vec![0.0; probe.items.len() * width];
        let items = Prepared {
            kind: task.kind,
            items: probe.items.clone(),
            item_half: Vec::new(),
            examples: Vec::new(),
            probe: None,
        };
        let mut set = BaseSet::empty(model, probe.batches.len());
        for (at, batch) in probe.batches.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(NoProbe::Stopped);
            }
            let batch = DeviceBatch::new(model, &items, batch);
            let last = set.state(model, at, &batch).0.x[model.blocks.len()].shallow_clone();
            set.forget(at);
            let last = batch.at_scored(last.view([1, batch.final_tokens(), model.d_model()]));
            let embedded = host(&embeddings(model, &batch, &model.finish(&last)));
            for (&item, own) in batch.items.iter().zip(embedded.chunks_exact(width)) {
                x[item as usize * width..][..width].copy_from_slice(own);
            }
        }
        let Fitted { weights, bias } = logistic::fit(&x, width, &probe.labels, probe.classes.len(), C)
            .map_err(|e| NoProbe::Failed(format!("the probe can't be fitted: {e}")))?;
        let weight = Tensor::from_slice(&weights.concat()).view([bias.len() as i64, width as i64]);
        Ok(Self {
            weight: weight.to_device(model.device),
            bias: Tensor::from_slice(&bias).to_device(model.device),
        })
    }

    /// Weights `[labels · d_model]` and biases `[labels]`, on the host.
    #[must_use]
    pub fn parameters(&self) -> (Vec<f64>, Vec<f64>) {
        (host(&self.weight), host(&self.bias))
    }
}

/// Embeddings of a batch's items, f64 `[rows, items, d_model]`, from final states `x`: those at the scored
/// positions `[rows, items, d_model]`, or where none are scored the mean over the tokens of
/// `[rows, batch · len, d_model]`.
pub fn embeddings(model: &Model, batch: &DeviceBatch, x: &Tensor) -> Tensor {
    if batch.scored.is_some() {
        return x.to_kind(Kind::Double);
    }
    let (rows, b, d) = (x.size()[0], batch.items.len() as i64, model.d_model());
    let wide = x.view([rows, b, batch.len, d]).to_kind(Kind::Double);
    let counts = batch.real.sum_dim_intlist([1i64].as_slice(), true, None::<Kind>);
    let weights = (&batch.real / counts).view([1, b, batch.len, 1]);
    (wide * weights).sum_dim_intlist([2i64].as_slice(), false, None::<Kind>)
}

/// Logits of the labels, f64 `[rows, items, labels]`, from final states `x` (see [`embeddings`]): by the probe
/// where there is one, or else by the model's own head.
pub fn logits(model: &Model, batch: &DeviceBatch, x: &Tensor, probe: Option<&FittedProbe>) -> Option<Tensor> {
    match (probe, &model.classifier) {
        (Some(probe), _) => Some(embeddings(model, batch, x).linear(&probe.weight, Some(&probe.bias))),
        (None, Some(head)) => Some(head.logits(x).to_kind(Kind::Double)),
        (None, None) => None,
    }
}
