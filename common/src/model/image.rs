//! What a model of images takes: their size, and the patches that they are cut into.

use serde::{Deserialize, Serialize};

/// Shape of the images that a model looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height of a patch.
    pub patch_height: u32,
    /// Width of a patch.
    pub patch_width: u32,
}

/// Longest side of a model's image, in pixels.
const LONGEST: u32 = 1 << 14;

impl ImageShape {
    /// Rows and columns of patches; pixels beyond the last whole patch aren't looked at.
    #[must_use]
    pub fn patches(&self) -> (u32, u32) {
        let whole = |side: u32, patch: u32| side.checked_div(patch).unwrap_or(0);
        (whole(self.height, self.patch_height), whole(self.width, self.patch_width))
    }

    /// Length of the sequence that an image becomes: the CLS token, then the patches row by row.
    #[must_use]
    pub fn places(&self) -> u32 {
        let (rows, columns) = self.patches();
        1 + rows * columns
    }

    /// Values of an image: channels · height · width.
    #[must_use]
    pub fn values(&self) -> usize {
        self.channels as usize * self.height as usize * self.width as usize
    }

    /// Refuses numbers that no model has.
    pub(super) fn plausible(&self) -> Result<(), String> {
        let Self { height, width, patch_height, patch_width, .. } = *self;
        if height > LONGEST || width > LONGEST {
            return Err(format!("an image_size of {height} x {width} can't be right (at most {LONGEST})"));
        }
        if patch_height > height || patch_width > width {
            return Err(format!(
                "a patch of {patch_height} x {patch_width} doesn't fit into an image of {height} x {width}"
            ));
        }
        Ok(())
    }
}
