//! Reading preprocessor_config.json, strictly: what changes pixels is understood or refused by name. Keys that are
//! missing have the values that transformers' `ViTImageProcessor` gives them.

use super::{Filter, Preprocessor};
use crate::Error;
use ablate_common::model::ImageShape;
use ablate_common::pixels::Scaling;
use serde_json::Value;
use std::path::Path;

/// Names of the processors that do what is done here.
const KNOWN: [&str; 4] =
    ["ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor"];

/// What a processor does unless told: every level from −1 to 1.
const USUAL_SIZE: u64 = 224;
const USUAL_FACTOR: f64 = 1.0 / 255.0;
const USUAL_MEAN: f64 = 0.5;

/// Largest file that is read.
const MAX_JSON: u64 = 1 << 20;

impl Preprocessor {
    /// The preprocessor of the model in `model`, whose images have `shape`.
    ///
    /// # Errors
    /// Where the file is missing, damaged, or says what isn't supported.
    pub fn read(model: &Path, shape: ImageShape) -> Result<Self, Error> {
        let path = model.join("preprocessor_config.json");
        let bad = |what: String| Error::Input(format!("{}: {what}", path.display()));
        let size = std::fs::metadata(&path).map_err(|e| {
            bad(format!("{e}; it says how images are prepared: put it beside config.json (ViTImageProcessor.save_pretrained writes it)"))
        })?;
        if size.len() > MAX_JSON {
            return Err(bad(format!("{} bytes are too many", size.len())));
        }
        let text = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
        let value: serde_json::Map<String, Value> =
            serde_json::from_slice(&text).map_err(|e| bad(format!("it can't be read: {e}")))?;
        parsed(&Keys(&value), shape).map_err(bad)
    }
}

/// The file's content.
struct Keys<'a>(&'a serde_json::Map<String, Value>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        self.get(key).map_or(Ok(true), |v| {
            v.as_bool().ok_or_else(|| format!("{key} should be true or false, but is {v}"))
        })
    }

    /// A number for each channel; one number is that of all.
    fn by_channel(&self, key: &str, channels: usize) -> Result<Vec<f64>, String> {
        let wrong = |v: &Value| format!("{key} should be a number, or a list of numbers, but is {v}");
        let numbers = match self.get(key) {
            None => vec![USUAL_MEAN; 3],
            Some(Value::Array(all)) => all
                .iter()
                .map(|v| v.as_f64().filter(|n| n.is_finite()).ok_or_else(|| wrong(v)))
                .collect::<Result<Vec<f64>, String>>()?,
            Some(v) => vec![v.as_f64().ok_or_else(|| wrong(v))?; channels],
        };
        if numbers.len() != channels {
            return Err(format!(
                "{key} has {} numbers, but the model's images have {channels} channels",
                numbers.len()
            ));
        }
        Ok(numbers)
    }

    /// Height and width that images are brought to.
    fn size(&self) -> Result<(u64, u64), String> {
        let Some(v) = self.get("size") else { return Ok((USUAL_SIZE, USUAL_SIZE)) };
        let both = match v {
            Value::Object(sides) => {
                let side = |key: &str| sides.get(key).and_then(Value::as_u64);
                let others = sides.iter().any(|(k, v)| k != "height" && k != "width" && !v.is_null());
                side("height").zip(side("width")).filter(|_| !others)
            }
            v => v.as_u64().map(|n| (n, n)),
        };
        both.ok_or_else(|| format!("size = {v} isn't supported (supported: height and width, or a number)"))
    }
}

fn parsed(keys: &Keys<'_>, shape: ImageShape) -> Result<Preprocessor, String> {
    for key in ["image_processor_type", "feature_extractor_type"] {
        if let Some(v) = keys.get(key)
            && !v.as_str().is_some_and(|name| KNOWN.contains(&name))
        {
            return Err(format!("{key} = {v} isn't supported (supported: {})", KNOWN.join(", ")));
        }
    }
    let known = ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"];
    if let Some((key, v)) = keys.0.iter().find(|(k, v)| {
        k.starts_with("do_") && !known.contains(&k.as_str()) && !matches!(v, Value::Null | Value::Bool(false))
    }) {
        return Err(format!("{key} = {v} isn't supported"));
    }
    let (height, width) = (u64::from(shape.height), u64::from(shape.width));
    let filter = if keys.flag("do_resize")? {
        let to = keys.size()?;
        if to != (height, width) {
            return Err(format!(
                "size is {} x {} (height x width), but the model's image_size is {height} x {width}: its positions aren't interpolated",
                to.0, to.1
            ));
        }
        let number = keys.get("resample").map_or(Ok(2), |v| {
            v.as_u64().ok_or_else(|| format!("resample should be a number from 0 to 5, but is {v}"))
        })?;
        Some(Filter::numbered(number).ok_or_else(|| {
            format!("resample = {number} isn't supported (supported: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming)")
        })?)
    } else {
        None
    };
    let factor = if keys.flag("do_rescale")? {
        Some(match keys.get("rescale_factor") {
            None => USUAL_FACTOR,
            Some(v) => v
                .as_f64()
                .filter(|n| n.is_finite())
                .ok_or_else(|| format!("rescale_factor should be a number, but is {v}"))?,
        })
    } else {
        None
    };
    let channels = shape.channels as usize;
    let (mean, deviation) = if keys.flag("do_normalize")? {
        let all = (keys.by_channel("image_mean", channels)?, keys.by_channel("image_std", channels)?);
        if all.1.contains(&0.0) {
            return Err("image_std has a 0, and nothing is divided by that".into());
        }
        all
    } else {
        (Vec::new(), Vec::new())
    };
    Ok(Preprocessor { shape, filter, scaling: Scaling { factor, mean, deviation } })
}
