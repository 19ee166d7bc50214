//! What turns a task's data into what the model reads.

use crate::Error;
use crate::images::Preprocessor;
use crate::tokenizer::Text;
use ablate_common::model::Inspected;
use std::path::Path;

/// The model's tokenizer, or its image processor.
#[derive(Debug)]
pub enum Reader {
    /// Of a model that reads text.
    Text(Box<Text>),
    /// Of a model that looks at images.
    Images(Preprocessor),
}

impl Reader {
    /// The reader of the model at `path`.
    ///
    /// # Errors
    /// Where its file is missing, damaged or of an unsupported kind.
    pub fn of(model: &Inspected, path: &Path) -> Result<Self, Error> {
        match model.info.details.image {
            Some(shape) => Preprocessor::read(path, shape).map(Self::Images),
            None => Text::new(&model.tokenizer).map(|text| Self::Text(Box::new(text))),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// Where the model looks at images.
    pub fn text(&self) -> Result<&Text, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Images(_) => Err("the model looks at images and reads no text".into()),
        }
    }
}
