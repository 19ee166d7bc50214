//! Encoder-decoders: marian, t5.

use super::super::need::{Needs, bare, dims, linear, pair};
use super::super::{Activation, Error, ModelInfo, Relative, Seq2Seq, Tables, WeightIndex};
use super::config::Config;
use crate::head::{HeadMap, Stream};

type Read = Result<(ModelInfo, Needs), Error>;

/// The context of a T5 that gives none: its relative positions have no end.
const T5_CONTEXT: u32 = 512;

/// Sets heads and layers of the three streams.
fn streams(info: &mut ModelInfo, decoder_layers: u32) {
    let (encoder, heads) = (info.layers, info.n_heads);
    info.heads = HeadMap {
        streams: vec![
            (Stream::Encoder, encoder, heads),
            (Stream::Decoder, decoder_layers, heads),
            (Stream::Cross, decoder_layers, heads),
        ],
    };
    info.layers = encoder + decoder_layers;
}

/// The tokens that end a target: a number or a list of them.
fn ends(c: &Config<'_>) -> Result<Vec<u32>, Error> {
    let bad = || c.bad("eos_token_id should be a whole number or a list of them".into());
    let number = |v: &serde_json::Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(bad);
    match c.get("eos_token_id") {
        None => Ok(Vec::new()),
        Some(v) => match v.as_array() {
            Some(list) => list.iter().map(number).collect(),
            None => Ok(vec![number(v)?]),
        },
    }
}

/// The token that the decoder begins with.
fn start(c: &Config<'_>) -> Result<u32, Error> {
    let own = c.uint("decoder_start_token_id")?;
    own.or(c.uint("pad_token_id")?)
        .ok_or_else(|| c.bad("decoder_start_token_id is missing, and so is pad_token_id".into()))
}

/// The token tables, each once.
fn tables(out: &mut Needs, info: &ModelInfo, weights: &WeightIndex) {
    let names = Tables::of(info, |name| weights.tensors.contains_key(name));
    let (d, source, target) =
        (u64::from(info.d_model), u64::from(info.vocab), u64::from(info.target_vocab()));
    for (name, rows) in [(names.source, source), (names.target, target), (names.output, target)] {
        if !out.iter().any(|(n, shape)| *n == name && shape[0] == rows) {
            out.push((name, vec![rows, d]));
        }
    }
}

/// Marian: norms behind the residual sums; positions learned where the files hold them, else sinusoidal.
pub fn marian(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    c.only("is_decoder", &[false.into()])?;
    c.shape(&mut info, ["d_model", "encoder_attention_heads", "encoder_layers"])?;
    c.only("decoder_attention_heads", &[info.n_heads.into()])?;
    let decoder_layers = c.need("decoder_layers")?;
    streams(&mut info, decoder_layers);
    info.d_ff = c.need("encoder_ffn_dim")?;
    info.context = c.need("max_position_embeddings")?;
    info.norm_eps = 1e-5;
    info.tied = c.flag("tie_word_embeddings", true)?;
    info.details.activation = c.activation("activation_function", Activation::Gelu)?;
    let seq2seq = Seq2Seq {
        decoder_ff: c.need("decoder_ffn_dim")?,
        target_vocab: c.uint("decoder_vocab_size")?.unwrap_or(info.vocab),
        start: start(c)?,
        end: ends(c)?,
        shared: c.flag("share_encoder_decoder_embeddings", true)?,
        gated: false,
        embed_scale: c.flag("scale_embedding", false)?.then(|| f64::from(info.d_model).sqrt()),
        output_scale: None,
        relative: None,
    };
    let (target, decoder_ff) = (u64::from(seq2seq.target_vocab), u64::from(seq2seq.decoder_ff));
    if seq2seq.shared && seq2seq.target_vocab != info.vocab {
        return Err(c.bad(format!(
            "source and target share an embedding, but know {} and {target} tokens",
            info.vocab
        )));
    }
    info.details.seq2seq = Some(seq2seq);
    let (d, ff, ..) = dims(&info);
    let mut out = Vec::new();
    tables(&mut out, &info, weights);
    if weights.tensors.contains_key("final_logits_bias") {
        out.push(("final_logits_bias".into(), vec![1, target]));
    }
    for side in ["encoder", "decoder"] {
        let name = format!("model.{side}.embed_positions.weight");
        if weights.tensors.contains_key(&name) {
            out.push((name, vec![info.context.into(), d]));
        }
    }
    let attention = |out: &mut Needs, at: &str, kind: &str| {
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            pair(out, &format!("{at}.{kind}.{part}"), d, Some(d));
        }
        pair(out, &format!("{at}.{kind}_layer_norm"), d, None);
    };
    for (side, layers, ff) in
        [("encoder", info.layers - decoder_layers, ff), ("decoder", decoder_layers, decoder_ff)]
    {
        for n in 0..layers {
            let at = format!("model.{side}.layers.{n}");
            attention(&mut out, &at, "self_attn");
            if side == "decoder" {
                attention(&mut out, &at, "encoder_attn");
            }
            pair(&mut out, &format!("{at}.fc1"), ff, Some(d));
            pair(&mut out, &format!("{at}.fc2"), d, Some(ff));
            pair(&mut out, &format!("{at}.final_layer_norm"), d, None);
        }
    }
    Ok((info, out))
}

/// T5: norms without shift before each part, relative positions, attention scores that aren't scaled.
pub fn t5(c: &Config<'_>, mut info: ModelInfo, weights: &WeightIndex) -> Read {
    c.only("is_decoder", &[false.into()])?;
    (info.d_model, info.n_heads, info.layers) =
        (c.need("d_model")?, c.need("num_heads")?, c.need("num_layers")?);
    (info.n_kv_heads, info.head_dim, info.vocab) = (info.n_heads, c.need("d_kv")?, c.need("vocab_size")?);
    let decoder_layers = c.uint("num_decoder_layers")?.unwrap_or(info.layers);
    streams(&mut info, decoder_layers);
    info.d_ff = c.need("d_ff")?;
    info.context = c.uint("n_positions")?.unwrap_or(T5_CONTEXT);
    info.norm_eps = c.float("layer_norm_epsilon")?;
    // Files may hold an unembedding of their own whatever this says; it only decides on the factor below.
    info.tied = true;
    info.details.attention_scale = Some(1.0);
    let (gated, activation) = feed_forward(c)?;
    info.details.activation = (activation != Activation::Relu).then_some(activation);
    let usual = c.flag("tie_word_embeddings", true)?;
    let scaled = c.flag("scale_decoder_outputs", usual)?;
    let relative = Relative {
        buckets: c.uint("relative_attention_num_buckets")?.unwrap_or(32),
        distance: c.uint("relative_attention_max_distance")?.unwrap_or(128),
    };
    info.details.seq2seq = Some(Seq2Seq {
        decoder_ff: info.d_ff,
        target_vocab: info.vocab,
        start: start(c)?,
        end: ends(c)?,
        shared: true,
        gated,
        embed_scale: None,
        output_scale: scaled.then(|| f64::from(info.d_model).powf(-0.5)),
        relative: Some(relative),
    });
    let (d, ff, q, _) = dims(&info);
    let mut out = Vec::new();
    tables(&mut out, &info, weights);
    let attention = |out: &mut Needs, at: &str, kind: &str| {
        for part in ["q", "k", "v"] {
            linear(out, &format!("{at}.{kind}.{part}"), q, d, false);
        }
        linear(out, &format!("{at}.{kind}.o"), d, q, false);
        bare(out, &format!("{at}.layer_norm"), d);
    };
    for (side, layers) in [("encoder", info.layers - decoder_layers), ("decoder", decoder_layers)] {
        let bias = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias");
        linear(&mut out, &bias, relative.buckets.into(), info.n_heads.into(), false);
        for n in 0..layers {
            let at = format!("{side}.block.{n}.layer");
            attention(&mut out, &format!("{at}.0"), "SelfAttention");
            let last = if side == "decoder" {
                attention(&mut out, &format!("{at}.1"), "EncDecAttention");
                2
            } else {
                1
            };
            let up: &[&str] = if gated { &["wi_0", "wi_1"] } else { &["wi"] };
            for part in up {
                linear(&mut out, &format!("{at}.{last}.DenseReluDense.{part}"), ff, d, false);
            }
            linear(&mut out, &format!("{at}.{last}.DenseReluDense.wo"), d, ff, false);
            bare(&mut out, &format!("{at}.{last}.layer_norm"), d);
        }
        bare(&mut out, &format!("{side}.final_layer_norm"), d);
    }
    Ok((info, out))
}

/// Whether the feed-forward part is gated, and its activation, both in one name.
fn feed_forward(c: &Config<'_>) -> Result<(bool, Activation), Error> {
    let name = c.text("feed_forward_proj")?.unwrap_or("relu");
    let (gated, activation) = name.strip_prefix("gated-").map_or((false, name), |rest| (true, rest));
    let activation = match (gated, activation) {
        // The name stands for the approximation where it is gated.
        (true, "gelu") | (_, "gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
        (false, "gelu") => Activation::Gelu,
        (_, "relu") => Activation::Relu,
        (_, "silu" | "swish") => Activation::Silu,
        _ => {
            return Err(c.unsupported(format!(
                "feed_forward_proj = {name:?} isn't supported (supported: relu, gelu, silu, and the same with gated-)"
            )));
        }
    };
    Ok((gated, activation))
}
