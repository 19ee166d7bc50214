//! Reading config.json, strictly: what changes the forward pass is understood or refused by name.

use super::super::{Activation, Error, ModelInfo, RopeScaling};
use crate::head::HeadMap;
use serde_json::Value;
use std::path::Path;

/// config.json.
pub struct Config<'a> {
    /// Its place.
    pub path: &'a Path,
    /// Its content.
    pub value: Value,
}

impl Config<'_> {
    pub fn bad(&self, what: String) -> Error {
        Error::Bad { path: self.path.to_owned(), what }
    }

    pub fn unsupported(&self, what: String) -> Error {
        Error::Unsupported { path: self.path.to_owned(), what }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key)
            .map(|v| v.as_str().ok_or_else(|| self.bad(format!("{key} should be a string, but is {v}"))))
            .transpose()
    }

    /// Whether the model was saved as one whose class name ends in `head`.
    pub fn made_for(&self, head: &str) -> Result<bool, Error> {
        let Some(v) = self.get("architectures") else { return Ok(false) };
        let names =
            v.as_array().ok_or_else(|| self.bad(format!("architectures should be a list, but is {v}")))?;
        Ok(names.iter().filter_map(Value::as_str).any(|n| n.ends_with(head)))
    }

    pub fn uint(&self, key: &str) -> Result<Option<u32>, Error> {
        let read = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        self.get(key)
            .map(|v| read(v).ok_or_else(|| self.bad(format!("{key} should be a whole number, but is {v}"))))
            .transpose()
    }

    pub fn need(&self, key: &str) -> Result<u32, Error> {
        self.uint(key)?.filter(|&n| n > 0).ok_or_else(|| self.bad(format!("{key} is missing or 0")))
    }

    /// One whole number or two, each above 0: the height and the width of something.
    pub fn sides(&self, key: &str, usual: u32) -> Result<(u32, u32), Error> {
        let read = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
        let Some(v) = self.get(key) else { return Ok((usual, usual)) };
        let both = match v.as_array().map(Vec::as_slice) {
            None => read(v).map(|n| (n, n)),
            Some([height, width]) => read(height).zip(read(width)),
            Some(_) => None,
        };
        both.ok_or_else(|| {
            self.bad(format!("{key} should be a whole number above 0, or a list of two, but is {v}"))
        })
    }

    pub fn float(&self, key: &str) -> Result<f64, Error> {
        let v = self.get(key).ok_or_else(|| self.bad(format!("{key} is missing")))?;
        v.as_f64().ok_or_else(|| self.bad(format!("{key} should be a number, but is {v}")))
    }

    /// Refuses a key whose value is none of `fine` (where it is given at all).
    pub fn only(&self, key: &str, fine: &[Value]) -> Result<(), Error> {
        match self.get(key) {
            Some(v) if !fine.contains(v) => Err(self.unsupported(format!("{key} = {v} isn't supported"))),
            _ => Ok(()),
        }
    }

    /// A number that may be missing; 0 is no number here.
    pub fn positive(&self, key: &str) -> Result<Option<f64>, Error> {
        self.get(key)
            .map(|v| {
                v.as_f64()
                    .filter(|n| *n > 0.0)
                    .ok_or_else(|| self.bad(format!("{key} should be a number above 0, but is {v}")))
            })
            .transpose()
    }

    /// true or false, `usual` where the key is missing.
    pub fn flag(&self, key: &str, usual: bool) -> Result<bool, Error> {
        self.get(key).map_or(Ok(usual), |v| {
            v.as_bool().ok_or_else(|| self.bad(format!("{key} should be true or false, but is {v}")))
        })
    }

    /// Whether the key is there with the value null, which is not the same as missing.
    pub fn is_null(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(Value::is_null)
    }

    /// What changes the forward pass of any architecture; whether it has an encoder and a decoder is known.
    pub fn refuse_common(&self, encoder_decoder: bool) -> Result<(), Error> {
        self.only("quantization_config", &[])?;
        self.only("is_encoder_decoder", &[encoder_decoder.into()])?;
        self.only("add_cross_attention", &[false.into()])?;
        self.only("use_bidirectional_attention", &[false.into()])?;
        self.only("position_embedding_type", &["absolute".into()])?;
        self.only("pruned_heads", &[Value::Object(serde_json::Map::new())])
    }

    /// The activation under `key`; `None` where it is missing or the architecture's `usual` one.
    pub fn activation(&self, key: &str, usual: Activation) -> Result<Option<Activation>, Error> {
        let found = match self.text(key)? {
            None => usual,
            Some("gelu" | "gelu_python") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("silu" | "swish") => Activation::Silu,
            Some("relu") => Activation::Relu,
            Some(other) => {
                return Err(self.unsupported(format!(
                    "{key} = {other:?} isn't supported (supported: gelu, gelu_new, gelu_pytorch_tanh, relu, silu)"
                )));
            }
        };
        Ok((found != usual).then_some(found))
    }

    /// Vocabulary and, under the given keys, width, heads and layers, into `info`.
    pub fn shape(&self, info: &mut ModelInfo, keys: [&str; 3]) -> Result<(), Error> {
        self.heads(info, keys)?;
        info.vocab = self.need("vocab_size")?;
        Ok(())
    }

    /// Width, heads and layers under the given keys, into `info`; a head is as wide as they leave it.
    pub fn heads(&self, info: &mut ModelInfo, [width, heads, layers]: [&str; 3]) -> Result<(), Error> {
        (info.d_model, info.n_heads, info.layers) =
            (self.need(width)?, self.need(heads)?, self.need(layers)?);
        info.heads = HeadMap::single_stream(info.layers, info.n_heads);
        info.n_kv_heads = info.n_heads;
        match self.uint("head_dim")? {
            Some(n) => info.head_dim = n,
            None if info.d_model.is_multiple_of(info.n_heads) => info.head_dim = info.d_model / info.n_heads,
            None => {
                return Err(
                    self.bad(format!("{} heads don't divide a {width} of {}", info.n_heads, info.d_model))
                );
            }
        }
        Ok(())
    }

    /// Base, rotated width and scaling of the rotary embedding, into `info`. `theta` is the top-level key
    /// of the base, `share` the key and usual value of the rotated share of a head (1 where all is
    /// rotated, which no key can change then).
    pub fn rotary(&self, info: &mut ModelInfo, theta: &str, share: (&str, f64)) -> Result<(), Error> {
        let none = serde_json::Map::new();
        let (name, rope) = match (self.get("rope_scaling"), self.get("rope_parameters")) {
            (Some(v), _) => ("rope_scaling", v),
            (None, Some(v)) => ("rope_parameters", v),
            (None, None) => ("rope_parameters", &Value::Null),
        };
        let rope = if rope.is_null() {
            &none
        } else {
            rope.as_object().ok_or_else(|| self.bad(format!("{name} should be an object, but is {rope}")))?
        };
        let number = |key: &str| -> Result<Option<f64>, Error> {
            rope.get(key)
                .filter(|v| !v.is_null())
                .map(|v| {
                    v.as_f64().filter(|n| *n > 0.0).ok_or_else(|| {
                        self.bad(format!("{key} in {name} should be a number above 0, but is {v}"))
                    })
                })
                .transpose()
        };
        let need = |key: &str| number(key)?.ok_or_else(|| self.bad(format!("{name} has no {key}")));
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).filter(|v| !v.is_null());
        let kind = kind.map_or(Some("default"), Value::as_str);
        let own: &[&str] = match kind {
            Some("default") => &[],
            Some("linear") => &["factor"],
            Some("llama3") => {
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            }
            other => {
                return Err(self.unsupported(format!(
                    "{name} of type {other:?} isn't supported (supported: default, linear, llama3)"
                )));
            }
        };
        let always = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        if let Some((key, v)) = rope
            .iter()
            .find(|(k, v)| !v.is_null() && !own.contains(&k.as_str()) && !always.contains(&k.as_str()))
            // Written for every type, read by one.
            .filter(|(k, _)| k.as_str() != "original_max_position_embeddings")
        {
            return Err(self.unsupported(format!("{key} = {v} in {name} isn't supported")));
        }
        info.details.rope_scaling = match kind {
            Some("linear") => Some(RopeScaling::Linear { factor: need("factor")? }),
            Some("llama3") => Some(RopeScaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: match self.positive("original_max_position_embeddings")? {
                    Some(n) => n,
                    None => number("original_max_position_embeddings")?.unwrap_or(f64::from(info.context)),
                },
            }),
            _ => None,
        };
        let base = match number("rope_theta")? {
            Some(n) => n,
            None => self.positive(theta)?.unwrap_or(10_000.0),
        };
        info.rope_theta = Some(base);
        let (share_key, usual) = share;
        let part = match number("partial_rotary_factor")? {
            Some(n) => n,
            None => self.positive(share_key)?.unwrap_or(usual),
        };
        // Old and new names of a setting may stand side by side, but not with different values.
        for (key, used) in [("rope_theta", base), ("partial_rotary_factor", part)] {
            if let Some(n) = self.positive(key)?
                && (n - used).abs() > f64::EPSILON * used
            {
                return Err(self.unsupported(format!("{key} = {n} beside {used} isn't supported")));
            }
        }
        if part > 1.0 || (usual >= 1.0 && share_key.is_empty() && part < 1.0) {
            return Err(self.unsupported(format!("partial_rotary_factor = {part} isn't supported")));
        }
        let turned = (f64::from(info.head_dim) * part) as u32;
        info.details.rotary_dim = (turned != info.head_dim).then_some(turned);
        Ok(())
    }
}
