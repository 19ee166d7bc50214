//! Tokenizers: from tokenizer.json, or from a GGUF file's metadata.

use crate::Error;
use ablate_common::model::{GgufTokenizer, TokenizerSource};
use serde_json::{Value, json};
use std::collections::HashSet;
use tokenizers::Tokenizer;

/// A tokenizer that neither truncates nor pads.
#[derive(Debug)]
pub struct Text {
    inner: Tokenizer,
    special: HashSet<u32>,
    /// Special tokens that encoding puts before a text.
    pub prefix: Vec<u32>,
    /// Special tokens that encoding puts after a text.
    pub suffix: Vec<u32>,
}

impl Text {
    /// The tokenizer of a model.
    ///
    /// # Errors
    /// Where it is missing, damaged or of an unsupported kind.
    pub fn new(source: &TokenizerSource) -> Result<Self, Error> {
        let (bytes, name) = match source {
            TokenizerSource::Json(path) => {
                let name = path.display().to_string();
                let bytes = std::fs::read(path).map_err(|e| {
                    Error::Input(format!(
                        "model: the tokenizer {name} can't be read: {e}; put the model's tokenizer.json there"
                    ))
                })?;
                (bytes, name)
            }
            TokenizerSource::Gguf(g) => {
                let value =
                    from_gguf(g).map_err(|e| Error::Input(format!("tokenizer in the GGUF file: {e}")))?;
                (value.to_string().into_bytes(), "in the GGUF file".into())
            }
        };
        let bad = |e: tokenizers::Error| Error::Input(format!("tokenizer: {name}: {e}"));
        let mut inner = Tokenizer::from_bytes(bytes).map_err(|e| {
            Error::Input(format!(
                "model: the tokenizer {name} is damaged or of an unsupported kind: {e}; fetch it again from where the model comes from"
            ))
        })?;
        inner.with_truncation(None).map_err(bad)?;
        inner.with_padding(None);
        let special = inner.get_added_tokens_decoder().iter().filter(|t| t.1.special).map(|t| *t.0).collect();
        let mut text = Self { inner, special, prefix: Vec::new(), suffix: Vec::new() };
        let bare = text.bare("a").map_err(Error::Input)?;
        let whole = text.inner.encode_fast("a", true).map_err(bad)?.get_ids().to_vec();
        let at = whole.windows(bare.len().max(1)).position(|w| w == bare.as_slice()).ok_or_else(|| {
            Error::Input(format!("tokenizer: {name}: it changes a text when it adds special tokens"))
        })?;
        text.suffix = whole[at + bare.len()..].to_vec();
        text.prefix = whole[..at].to_vec();
        Ok(text)
    }

    /// Tokens of a text alone.
    pub fn bare(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|e| format!("the tokenizer fails: {e}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The one token that `text` is; `None` where it is several.
    pub fn single(&self, text: &str) -> Option<u32> {
        match self.bare(text).ok()?.as_slice() {
            [one] if !self.special.contains(one) => Some(*one),
            _ => None,
        }
    }

    /// The token that is spelled `text`, where it goes on a word.
    pub fn spelled(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text).filter(|id| !self.special.contains(id))
    }

    /// The token that stands for a hidden one.
    pub fn mask(&self) -> Option<u32> {
        ["[MASK]", "<mask>"].iter().find_map(|name| self.inner.token_to_id(name))
    }

    /// Whether a token is a special one.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    /// `bare` with the special tokens around it.
    pub fn wrap(&self, bare: &[u32]) -> Vec<u32> {
        [&self.prefix, bare, &self.suffix].concat()
    }

    /// Tokens that a text may take where a sequence has `max_tokens`.
    pub fn room(&self, max_tokens: u32) -> usize {
        (max_tokens as usize).saturating_sub(self.prefix.len() + self.suffix.len())
    }

    /// Ids of all tokens but special ones, ascending.
    pub fn ordinary(&self) -> Vec<u32> {
        let mut ids: Vec<u32> =
            self.inner.get_vocab(true).into_values().filter(|id| !self.special.contains(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// A token as people read it.
    #[must_use]
    pub fn show(&self, id: u32) -> String {
        let decoded = self.inner.decode(&[id], false).unwrap_or_default();
        let text = if decoded.is_empty() || decoded.contains('\u{fffd}') {
            self.inner.id_to_token(id).unwrap_or_else(|| format!("<{id}>"))
        } else {
            decoded
        };
        text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
    }
}

/// The pattern of Llama 3's and (with single digits) Qwen 2's pre-tokenizers.
fn split_pattern(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// What a pre-tokenizer of a GGUF file is in tokenizer.json: (pre-tokenizer, normalizer, whether whole
/// words that are tokens need no merges, whether a beginning-of-text token is the default).
fn pre_tokenizer(pre: &str) -> Result<(Value, Value, bool, bool), String> {
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |digits: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": split_pattern(digits)}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    Ok(match pre {
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            (json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]}), Value::Null, false, false)
        }
        "gpt-2" | "gpt2" => (bytes(true), Value::Null, false, false),
        "llama-bpe" | "llama3" | "llama-v3" => (split(r"\p{N}{1,3}"), Value::Null, true, true),
        "qwen2" => (split(r"\p{N}"), json!({"type": "NFC"}), false, false),
        other => {
            return Err(format!(
                "pre-tokenizer {other:?} isn't supported (supported: smollm, gpt-2, llama-bpe, qwen2); \
                 use the model as a Hugging Face directory with its tokenizer.json"
            ));
        }
    })
}

/// A tokenizer.json with what a GGUF file says.
fn from_gguf(g: &GgufTokenizer) -> Result<Value, String> {
    if g.model != "gpt2" {
        return Err(format!(
            "tokenizer.ggml.model {:?} isn't supported (supported: gpt2, byte-level BPE); \
             use the model as a Hugging Face directory with its tokenizer.json",
            g.model
        ));
    }
    let (pre, normalizer, ignore_merges, bos_default) = pre_tokenizer(&g.pre)?;
    let vocab: serde_json::Map<String, Value> =
        g.tokens.iter().cloned().zip((0u32..).map(Value::from)).collect();
    if vocab.len() != g.tokens.len() {
        return Err("a token is there twice".into());
    }
    let mut merges = Vec::new();
    for m in &g.merges {
        let (l, r) = m.split_once(' ').ok_or_else(|| format!("merge {m:?} isn't a pair"))?;
        merges.push(json!([l, r]));
    }
    let added = |id: usize, special: bool| json!({"id": id, "content": g.tokens[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
    // Types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    let added_tokens: Vec<Value> = g
        .types
        .iter()
        .enumerate()
        .take(g.tokens.len())
        .filter(|t| matches!(t.1, 3 | 4))
        .map(|(id, t)| added(id, *t == 3))
        .collect();
    let special = |id: Option<u32>, what: &str| {
        let id = id
            .ok_or_else(|| format!("{what} is to be added, but tokenizer.ggml.{what}_token_id is missing"))?;
        let token = g
            .tokens
            .get(id as usize)
            .ok_or_else(|| format!("tokenizer.ggml.{what}_token_id {id} is no token"))?;
        Ok::<_, String>((id, token.clone()))
    };
    let (mut single, mut specials) =
        (vec![json!({"Sequence": {"id": "A", "type_id": 0}})], serde_json::Map::new());
    let mut add = |(id, token): (u32, String), front: bool| {
        let piece = json!({"SpecialToken": {"id": token, "type_id": 0}});
        single.insert(if front { 0 } else { single.len() }, piece);
        specials.insert(token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}));
    };
    if g.add_bos.unwrap_or(bos_default) {
        add(special(g.bos, "bos")?, true);
    }
    if g.add_eos.unwrap_or(false) {
        add(special(g.eos, "eos")?, false);
    }
    let post = if specials.is_empty() {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
    } else {
        let mut pair = single.clone();
        pair.push(json!({"Sequence": {"id": "B", "type_id": 0}}));
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials})
    };
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens,
        "normalizer": normalizer,
        "pre_tokenizer": pre,
        "post_processor": post,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gguf() -> GgufTokenizer {
        let tokens: Vec<String> = ["<s>", "a", "b", "Ġ", "1", "2", "Ġa", "ab", "Ġab", "12"]
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
        let merges = ["Ġ a", "a b", "Ġa b", "1 2"].iter().map(|s| (*s).to_owned()).collect();
        let types = (0..tokens.len()).map(|i| if i == 0 { 3 } else { 1 }).collect();
        GgufTokenizer {
            model: "gpt2".into(),
            pre: "smollm".into(),
            tokens,
            types,
            merges,
            bos: Some(0),
            ..Default::default()
        }
    }

    fn text(g: GgufTokenizer) -> Result<Text, Error> {
        Text::new(&TokenizerSource::Gguf(Box::new(g)))
    }

    #[test]
    fn a_gguf_tokenizer_merges_splits_digits_and_knows_its_special_tokens() {
        let t = text(gguf()).unwrap();
        assert_eq!(t.bare("ab ab12<s>").unwrap(), [7, 8, 4, 5, 0], "digits are single");
        assert_eq!(
            (t.prefix.len(), t.single(" ab"), t.single("<s>"), t.single("aa")),
            (0, Some(8), None, None)
        );
        assert_eq!(t.ordinary(), (1..10).collect::<Vec<u32>>());
        assert_eq!((t.show(8), t.show(0)), (" ab".to_owned(), "<s>".to_owned()));
        let t = text(GgufTokenizer { pre: "gpt-2".into(), add_bos: Some(true), ..gguf() }).unwrap();
        assert_eq!((t.bare("12").unwrap(), t.wrap(&[1])), (vec![9], vec![0, 1]));
        for pre in ["llama-bpe", "qwen2"] {
            let t = text(GgufTokenizer { pre: pre.into(), ..gguf() }).unwrap();
            assert_eq!(t.bare("12").unwrap(), if pre == "qwen2" { vec![4, 5] } else { vec![9] });
        }
    }

    #[test]
    fn unsupported_or_damaged_gguf_tokenizers_are_refused_by_name() {
        let says = |g: GgufTokenizer, what: &str| {
            let e = text(g).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(what), "{e}");
        };
        says(
            GgufTokenizer { pre: "deepseek-llm".into(), ..gguf() },
            "pre-tokenizer \"deepseek-llm\" isn't supported",
        );
        says(
            GgufTokenizer { model: "llama".into(), ..gguf() },
            "tokenizer.ggml.model \"llama\" isn't supported",
        );
        says(GgufTokenizer { bos: None, add_bos: Some(true), ..gguf() }, "bos_token_id is missing");
        says(GgufTokenizer { merges: vec!["ab".into()], ..gguf() }, "isn't a pair");
        says(GgufTokenizer { merges: vec!["x y".into()], ..gguf() }, "tokenizer");
        says(GgufTokenizer { tokens: vec!["a".into(), "a".into()], ..gguf() }, "twice");
    }
}
