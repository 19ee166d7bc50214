//! The examples whose attention patterns are kept: their items, with the tokens as people read them.

use crate::Error;
use crate::reader::Reader;
use ablate_common::attention::{PATTERN_BYTES, cells};
use ablate_common::head::Stream;
use ablate_common::model::ModelInfo;
use ablate_common::plan::Shown;
use ablate_common::task::{Item, Prepared};
use ablate_common::units::UnitMap;

/// What patterns are made from.
pub struct Given<'a> {
    pub model: &'a ModelInfo,
    pub reader: &'a Reader,
    /// Heads that the sweep at `at` of the spec looks at.
    pub heads: &'a UnitMap,
    pub at: usize,
    /// Examples that it keeps.
    pub examples: &'a [u32],
}

/// The patterns of a task by stream, each with the stream's heads.
pub fn of(given: &Given<'_>, name: &str, task: &Prepared) -> Result<Vec<(UnitMap, Vec<Shown>)>, Error> {
    let wrong = |what: String| Error::Input(format!("[[sweep]] {}: task {name:?}: {what}", given.at + 1));
    let count = task.examples.len();
    if let Some(past) = given.examples.iter().find(|&&e| e as usize >= count) {
        return Err(wrong(format!(
            "patterns names example {past}, but there are {count}, from 0 on; correct patterns"
        )));
    }
    let mut out = Vec::new();
    let mut bytes = 0;
    for &(stream, ..) in &given.model.heads.streams {
        let heads = given.heads.narrowed(&given.model.heads, &[stream]);
        if heads.is_empty() || given.examples.is_empty() {
            continue;
        }
        let mut items = Vec::new();
        for &example in given.examples {
            for item in task.examples.get(example as usize).map(|e| task.items_of(e)).unwrap_or_default() {
                items.extend(task.items.get(item as usize).map(|own| {
                    let [queries, keys] = given.texts(own, stream);
                    Shown { example, item, queries, keys }
                }));
            }
        }
        bytes += heads.len() as u64 * cells(&items) * 8;
        out.push((heads, items));
    }
    if bytes > PATTERN_BYTES {
        let longest = out.iter().flat_map(|o| &o.1).map(|i| i.queries.len()).max().unwrap_or(0);
        return Err(wrong(format!(
            "the attention patterns of {} examples (sequences of up to {longest} tokens) take {} MB, and {} MB may be kept; name fewer or \
             shorter examples in patterns, lower max_tokens, or narrow the sweep with streams",
            given.examples.len(),
            bytes.div_ceil(1 << 20),
            PATTERN_BYTES >> 20
        )));
    }
    Ok(out)
}

impl Given<'_> {
    /// Tokens of the queries and keys of a stream's heads; no keys where they are the queries.
    fn texts(&self, item: &Item, stream: Stream) -> [Vec<String>; 2] {
        match stream {
            Stream::SelfAttention | Stream::Encoder => [self.read(item), Vec::new()],
            Stream::Decoder => [self.decoded(item), Vec::new()],
            Stream::Cross => [self.decoded(item), self.read(item)],
        }
    }

    /// Tokens that a model reads, or the places of an image.
    fn read(&self, item: &Item) -> Vec<String> {
        let token = |&t: &u32| match (self.reader, &self.model.details.image) {
            (Reader::Text(text), _) => text.show(t),
            (Reader::Images(_), Some(shape)) if t > 0 => {
                let columns = shape.patches().1.max(1);
                format!("patch {},{}", (t - 1) / columns, (t - 1) % columns)
            }
            (Reader::Images(_), _) => "CLS".to_owned(),
        };
        item.tokens.iter().map(token).collect()
    }

    /// Tokens that a decoder reads. Only where both sides share a vocabulary does the tokenizer know them.
    fn decoded(&self, item: &Item) -> Vec<String> {
        let shared = self.model.details.seq2seq.as_ref().is_none_or(|s| s.shared);
        let token = |&t: &u32| match self.reader {
            Reader::Text(text) if shared => text.show(t),
            _ => t.to_string(),
        };
        item.decoder.iter().map(token).collect()
    }
}
