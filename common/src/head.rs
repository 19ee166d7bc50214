//! Attention heads and their forward order. A head is (stream, layer, head), all from 0; its
//! [`HeadIx`] is its place in the order of (stream, layer, head). Where a forward pass alternates between
//! streams (a decoder's own attention and that to the encoder), [`Stage`] is the order in which it comes to them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which attention of the model a head belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Self-attention of a decoder-only or encoder-only model.
    #[serde(rename = "self")]
    SelfAttention,
    /// Self-attention of the encoder of an encoder-decoder model.
    Encoder,
    /// Self-attention of the decoder of an encoder-decoder model.
    Decoder,
    /// Attention from the decoder to the encoder.
    Cross,
}

impl Stream {
    /// The name used in specs, tables and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SelfAttention => "self",
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
            Self::Cross => "cross",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One attention head: a *query* head where queries are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Head {
    /// Stream of attention.
    pub stream: Stream,
    /// Layer application, from 0.
    pub layer: u32,
    /// Query head within the layer, from 0.
    pub head: u32,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream {
            Stream::SelfAttention => write!(f, "L{}.H{}", self.layer, self.head),
            s => write!(f, "{s} L{}.H{}", self.layer, self.head),
        }
    }
}

impl std::str::FromStr for Head {
    type Err = String;

    /// Reads "L3.H5" or "encoder L3.H5", as heads are written everywhere.
    fn from_str(text: &str) -> Result<Self, String> {
        let streams = [Stream::SelfAttention, Stream::Encoder, Stream::Decoder, Stream::Cross];
        let (stream, rest) = match text.split_once(' ') {
            None => (Some(Stream::SelfAttention), text),
            Some((name, rest)) => (streams.into_iter().find(|s| s.name() == name), rest),
        };
        let number = |digits: &str| -> Option<u32> {
            (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
        };
        stream
            .zip(rest.strip_prefix('L').and_then(|r| r.split_once(".H")))
            .and_then(|(stream, (layer, head))| {
                Some(Self { stream, layer: number(layer)?, head: number(head)? })
            })
            .ok_or_else(|| {
                format!("{text:?} isn't a head; write \"L0.H3\", or \"encoder L0.H3\" (decoder, cross) in an encoder-decoder model")
            })
    }
}

/// A head's place in forward order, from 0 to [`HeadMap::len`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeadIx(pub u32);

impl HeadIx {
    /// As an index into a slice.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// One attention of the forward pass, with what follows it up to the next one: the step at which a subset can
/// leave the states that it shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Stream of its attention.
    pub stream: Stream,
    /// Layer application within the stream.
    pub layer: u32,
}

/// All heads of a model, in forward order of the streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadMap {
    /// (stream, layers, heads per layer), in forward order of the streams.
    pub streams: Vec<(Stream, u32, u32)>,
}

impl HeadMap {
    /// A model with self-attention only.
    #[must_use]
    pub fn single_stream(layers: u32, heads: u32) -> Self {
        Self { streams: vec![(Stream::SelfAttention, layers, heads)] }
    }

    /// Number of heads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.iter().map(|&(_, l, h)| l as usize * h as usize).sum()
    }

    /// Whether the model has no head at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The head at `ix`; `None` past the end.
    #[must_use]
    pub fn head(&self, ix: HeadIx) -> Option<Head> {
        let mut left = ix.0;
        for &(stream, layers, heads) in &self.streams {
            if left < layers * heads {
                return Some(Head { stream, layer: left / heads, head: left % heads });
            }
            left -= layers * heads;
        }
        None
    }

    /// The place of `head`; `None` where the model has no such head.
    #[must_use]
    pub fn index(&self, head: Head) -> Option<HeadIx> {
        let mut before = 0;
        for &(stream, layers, heads) in &self.streams {
            if stream == head.stream {
                return (head.layer < layers && head.head < heads)
                    .then(|| HeadIx(before + head.layer * heads + head.head));
            }
            before += layers * heads;
        }
        None
    }

    /// Layers of a stream; 0 where the model has no such stream.
    #[must_use]
    pub fn layers(&self, stream: Stream) -> u32 {
        self.streams.iter().find(|s| s.0 == stream).map_or(0, |s| s.1)
    }

    /// Attentions of one forward pass.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.streams.iter().map(|s| s.1 as usize).sum()
    }

    /// The stage at which the decoder of an encoder-decoder begins; `None` for other models.
    #[must_use]
    pub fn decoder_stage(&self) -> Option<usize> {
        let encoder = self.layers(Stream::Encoder) as usize;
        (encoder > 0).then_some(encoder)
    }

    /// The stage at `at`, in the order in which a forward pass comes to them: an encoder's layers, then by
    /// decoder layer its self-attention and its attention to the encoder.
    #[must_use]
    pub fn stage(&self, at: usize) -> Stage {
        match self.decoder_stage() {
            None => Stage { stream: Stream::SelfAttention, layer: at as u32 },
            Some(encoder) if at < encoder => Stage { stream: Stream::Encoder, layer: at as u32 },
            Some(encoder) => {
                let stream = if (at - encoder).is_multiple_of(2) { Stream::Decoder } else { Stream::Cross };
                Stage { stream, layer: ((at - encoder) / 2) as u32 }
            }
        }
    }

    /// The stage whose attention holds `head`.
    #[must_use]
    pub fn stage_of(&self, head: Head) -> usize {
        let (encoder, layer) = (self.decoder_stage().unwrap_or(0), head.layer as usize);
        match head.stream {
            Stream::SelfAttention | Stream::Encoder => layer,
            Stream::Decoder => encoder + 2 * layer,
            Stream::Cross => encoder + 2 * layer + 1,
        }
    }

    /// Every head, in forward order.
    pub fn iter(&self) -> impl Iterator<Item = Head> + '_ {
        self.streams.iter().flat_map(|&(stream, layers, heads)| {
            (0..layers).flat_map(move |layer| (0..heads).map(move |head| Head { stream, layer, head }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        for text in ["L0.H3", "encoder L12.H0", "decoder L1.H10", "cross L2.H7"] {
            assert_eq!(text.parse::<Head>().unwrap().to_string(), text);
        }
        assert_eq!("self L1.H2".parse::<Head>(), "L1.H2".parse());
        for text in
            ["", "L1", "L1.H", "L.H1", "L1.H-1", "L+1.H1", "l1.h1", "other L1.H1", "L1.H2 ", "L1.H4294967296"]
        {
            assert!(text.parse::<Head>().unwrap_err().contains("isn't a head"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn head_and_index_are_inverse(l in 1u32..9, h in 1u32..9, c in 0u32..5) {
            let map = HeadMap { streams: vec![(Stream::Encoder, l, h), (Stream::Decoder, c, h + 1), (Stream::Cross, c, h)] };
            for (i, head) in map.iter().enumerate() {
                let ix = HeadIx(i as u32);
                prop_assert_eq!(map.head(ix), Some(head));
                prop_assert_eq!(map.index(head), Some(ix));
            }
            prop_assert_eq!(map.iter().count(), map.len());
            prop_assert_eq!(map.stages(), (l + 2 * c) as usize);
            for head in map.iter() {
                let stage = map.stage(map.stage_of(head));
                prop_assert_eq!((stage.stream, stage.layer), (head.stream, head.layer));
            }
            prop_assert_eq!(map.head(HeadIx(map.len() as u32)), None);
        }
    }
}
