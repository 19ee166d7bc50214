//! Activation shift: how far removing units changes the size of the residual stream. Reports of four- and fivefold norms exist, and
//! a model so far from what it was trained on says little about what the removed heads did.

use crate::head::{HeadMap, Stream};

/// What is kept per subset and [`points`] of the residual stream: the mean of ‖x‖₂ over the tokens of all items, the same of the unablated
/// model, the largest ratio of an item's own two means, and the unablated model's mean over the set that the ablation's b comes from
/// (where that is the task's own data: `unablated` once more).
pub const COLUMNS: [&str; 4] = ["norm", "unablated", "largest", "reference"];

/// Ratio from which a shift is flagged, upwards and (its inverse) downwards.
pub const FLAGGED: f64 = 2.0;

/// Whether a ratio of norms is a shift to be warned of. What isn't a number is.
#[must_use]
pub fn flagged(ratio: f64) -> bool {
    !(ratio < FLAGGED && ratio > 1.0 / FLAGGED)
}

/// Where the residual stream is looked at, in the order of the forward pass: (stream, layers of it that are done), 0 being the embeddings.
/// In an encoder-decoder there is the encoder's stream from its embeddings to its end; then the decoder's, between the two
/// attentions of each layer too, where it is called `cross`.
#[must_use]
pub fn points(heads: &HeadMap) -> Vec<(Stream, u32)> {
    let Some(encoder) = heads.decoder_stage() else {
        return (0..=heads.stages() as u32).map(|l| (Stream::SelfAttention, l)).collect();
    };
    let mut out: Vec<(Stream, u32)> = (0..=encoder as u32).map(|l| (Stream::Encoder, l)).collect();
    out.extend((encoder..heads.stages()).map(|s| heads.stage(s)).map(|s| (s.stream, s.layer)));
    out.push((Stream::Decoder, heads.layers(Stream::Decoder)));
    out
}

/// The point behind the stage at `stage`, among [`points`].
#[must_use]
pub fn behind(heads: &HeadMap, stage: usize) -> usize {
    // Behind the encoder's end stands the decoder's beginning.
    stage + 1 + usize::from(heads.decoder_stage().is_some_and(|d| stage >= d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_leads_to_a_point() {
        let plain = HeadMap::single_stream(2, 3);
        assert_eq!(points(&plain).len(), 3);
        assert_eq!((behind(&plain, 0), behind(&plain, 1)), (1, 2));
        let both = HeadMap {
            streams: vec![(Stream::Encoder, 2, 3), (Stream::Decoder, 1, 3), (Stream::Cross, 1, 3)],
        };
        let all = points(&both);
        let at = |stage| all[behind(&both, stage)];
        assert_eq!([at(0), at(1)], [(Stream::Encoder, 1), (Stream::Encoder, 2)]);
        assert_eq!([at(2), at(3)], [(Stream::Cross, 0), (Stream::Decoder, 1)]);
        assert_eq!((all[3], all.len()), ((Stream::Decoder, 0), 6));
    }

    #[test]
    fn twofold_either_way_is_flagged() {
        assert_eq!([0.5, 0.51, 1.0, 1.99, 2.0, f64::NAN].map(flagged), [true, false, false, false, true, true]);
    }
}
