//! Images: what is done with them before a model sees them, as its `preprocessor_config.json` says.

mod config;
mod decode;
mod resample;

pub use resample::{Filter, resize};

use ablate_common::model::ImageShape;
use ablate_common::pixels::{Pixels, Scaling};
use ablate_common::task::Item;
use std::path::{Component, Path};

/// Most bytes of pixels in a task: a store's blob holds them, a third larger, as one.
const MOST_BYTES: usize = 256 << 20;

/// What turns an image file into what a model is shown.
#[derive(Debug)]
pub struct Preprocessor {
    shape: ImageShape,
    /// How images of another size are brought to the model's; none: they are refused.
    filter: Option<Filter>,
    scaling: Scaling,
}

impl Preprocessor {
    /// A file as the model sees it.
    ///
    /// # Errors
    /// Where the file is missing, damaged or of an unsupported kind.
    pub fn item(&self, file: &Path) -> Result<Item, String> {
        let ImageShape { channels, height, width, .. } = self.shape;
        let found = decode::planes(file, channels).map_err(|e| format!("{}: {e}", file.display()))?;
        let levels = if (found.height, found.width) == (height, width) {
            found.levels
        } else {
            let filter = self.filter.ok_or_else(|| {
                format!(
                    "{}: it has {} x {} pixels (height x width), but the model takes {height} x {width} and its \
                     preprocessor_config.json says do_resize = false; resize it",
                    file.display(),
                    found.height,
                    found.width
                )
            })?;
            let planes = found.levels.chunks_exact(found.height as usize * found.width as usize);
            planes.flat_map(|p| resize(p, [found.height, found.width], [height, width], filter)).collect()
        };
        let image = Pixels { channels, height, width, levels, scaling: self.scaling.clone() };
        let tokens = (0..self.shape.places()).collect();
        Ok(Item { tokens, image: Some(Box::new(image)), ..Item::default() })
    }

    /// Refuses more images than a task may have.
    pub fn bounded(&self, images: usize) -> Result<(), String> {
        let most = MOST_BYTES / self.shape.values().max(1);
        if images <= most {
            return Ok(());
        }
        let ImageShape { channels, height, width, .. } = self.shape;
        Err(format!(
            "{images} images of {channels} x {height} x {width} are more than a task may have; set examples = {most} or fewer"
        ))
    }
}

/// The file that a record names, which must lie in `folder` or below it.
///
/// # Errors
/// Where the path leads elsewhere or nowhere.
pub fn located(folder: &Path, name: &str) -> Result<std::path::PathBuf, String> {
    let path = Path::new(name);
    let below = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !below {
        return Err(format!(
            "image {name:?} should be a path relative to the data file's folder, without \"..\": images lie in that folder or below it"
        ));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let file = folder.join(path);
    let real = |p: &Path| std::fs::canonicalize(p).map_err(|e| format!("image {}: {e}", p.display()));
    if !real(&file)?.starts_with(real(folder)?) {
        return Err(format!(
            "image {}: it is a link that leads out of the data file's folder",
            file.display()
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
