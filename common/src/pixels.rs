//! Images as a model is shown them: 8-bit levels, and the number that each level stands for. Eight bits are all that
//! there is after resizing, so that an image takes a quarter of its f32 values and nothing is lost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Levels of 8 bits.
pub const LEVELS: usize = 256;

/// An image of the size that the model takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Pixels {
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// Levels, `[channels, height, width]`, row-major.
    pub levels: Vec<u8>,
    /// What a level stands for.
    pub scaling: Scaling,
}

/// What the levels of an image stand for: ((level · factor) − mean) / deviation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Factor; none: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// By channel what is subtracted then; empty: neither this nor the division happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// By channel what is divided by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deviation: Vec<f64>,
}

impl Scaling {
    /// The number that each level of a channel stands for: the product taken in f64 and rounded to f32, the rest in
    /// f32, as transformers' image processors do.
    #[must_use]
    pub fn table(&self, channel: usize) -> [f32; LEVELS] {
        std::array::from_fn(|level| {
            let value = (level as f64 * self.factor.unwrap_or(1.0)) as f32;
            match (self.mean.get(channel), self.deviation.get(channel)) {
                (Some(&mean), Some(&deviation)) => (value - mean as f32) / deviation as f32,
                _ => value,
            }
        })
    }
}

impl Pixels {
    /// Bytes of the levels.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.levels.len()
    }
}

/// [`Pixels`] as they are stored: the levels in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    shape: [u32; 3],
    levels: String,
    scaling: Scaling,
}

impl From<Pixels> for Written {
    fn from(p: Pixels) -> Self {
        let shape = [p.channels, p.height, p.width];
        Self { shape, levels: STANDARD.encode(&p.levels), scaling: p.scaling }
    }
}

impl TryFrom<Written> for Pixels {
    type Error = String;

    fn try_from(w: Written) -> Result<Self, String> {
        let levels =
            STANDARD.decode(&w.levels).map_err(|e| format!("an image's levels are no base64: {e}"))?;
        let [channels, height, width] = w.shape;
        let wanted = w.shape.iter().map(|&n| u128::from(n)).product::<u128>();
        if levels.len() as u128 != wanted || levels.is_empty() {
            return Err(format!(
                "an image of {channels} x {height} x {width} has {} levels instead of {wanted}",
                levels.len()
            ));
        }
        let (means, deviations) = (w.scaling.mean.len(), w.scaling.deviation.len());
        if means != deviations || (means > 0 && means != channels as usize) {
            return Err(format!(
                "an image of {channels} channels has {means} means and {deviations} deviations"
            ));
        }
        Ok(Self { channels, height, width, levels, scaling: w.scaling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels() -> Pixels {
        let scaling = Scaling {
            factor: Some(1.0 / 255.0),
            mean: vec![0.485, 0.5, 0.1],
            deviation: vec![0.229, 0.5, 2.0],
        };
        Pixels { channels: 3, height: 2, width: 1, levels: vec![0, 255, 17, 128, 3, 250], scaling }
    }

    #[test]
    fn an_image_comes_back_and_a_damaged_one_is_refused() {
        let text = serde_json::to_string(&pixels()).unwrap();
        assert_eq!(serde_json::from_str::<Pixels>(&text).unwrap(), pixels());
        assert!(text.contains("\"AP8RgAP6\""), "{text}");
        for (from, to, what) in [
            ("[3,2,1]", "[3,2,2]", "6 levels instead of 12"),
            ("AP8R", "A?8R", "no base64"),
            ("[0.485,0.5,0.1]", "[0.485]", "1 means"),
            ("[3,2,1]", "[4294967295,4294967295,4294967295]", "6 levels instead of"),
        ] {
            let e = serde_json::from_str::<Pixels>(&text.replace(from, to)).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }

    #[test]
    fn levels_stand_for_what_numpy_computes() {
        // numpy: a = (np.float64(level) / 255).astype(np.float32); (a - np.float32(0.485)) / np.float32(0.229)
        let table = pixels().scaling.table(0);
        assert_eq!([table[0], table[17], table[255]], [-2.117_904, -1.826_783_2, 2.248_908_3]);
        assert_eq!(Scaling::default().table(2)[200], 200.0);
    }
}
