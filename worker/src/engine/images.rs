//! Images: from 8-bit levels to the residual stream. The patches' convolution never overlaps, so it is one product of
//! all patches with its matrix.

use super::base::DeviceBatch;
use super::model::Model;
use ablate_common::model::ImageShape;
use ablate_common::pixels::LEVELS;
use ablate_common::task::Item;
use tch::{Device, Kind, Tensor};

/// The images of a batch on the device.
#[derive(Debug)]
pub struct Images {
    /// Levels `[batch, channels, height, width]`, 8 bits each: numbers would take four times the memory or more.
    levels: Tensor,
    /// What they stand for: f32 `[batch · channels · 256]`.
    tables: Tensor,
}

impl Images {
    /// The items' images, which must all be of one size; none where an item has none.
    pub fn of<'a>(items: impl Iterator<Item = &'a Item>, device: Device) -> Option<Self> {
        let images = items.map(|i| i.image.as_deref()).collect::<Option<Vec<_>>>()?;
        let first = images.first()?;
        let shape = [images.len() as i64, first.channels.into(), first.height.into(), first.width.into()];
        let (mut levels, mut tables) = (Vec::new(), Vec::new());
        for image in &images {
            levels.extend_from_slice(&image.levels);
            (0..image.channels as usize).for_each(|c| tables.extend(image.scaling.table(c)));
        }
        Some(Self {
            levels: Tensor::from_slice(&levels).view(shape).to_device(device),
            tables: Tensor::from_slice(&tables).to_device(device),
        })
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> Self {
        Self { levels: self.levels.shallow_clone(), tables: self.tables.shallow_clone() }
    }

    /// Pixel values of the patches, image by image and row by row, each `channels · patch height · patch width` in the
    /// order of the convolution's weights: `[batch · patches, values of a patch]`.
    fn patches(&self, shape: &ImageShape, kind: Kind) -> Tensor {
        let size = self.levels.size();
        let [ph, pw] = [shape.patch_height, shape.patch_width].map(i64::from);
        let (rows, columns) = shape.patches();
        let [rows, columns] = [rows, columns].map(i64::from);
        let whole = self.levels.narrow(2, 0, rows * ph).narrow(3, 0, columns * pw);
        let first = Tensor::arange(size[0] * size[1], (Kind::Int64, self.levels.device())) * LEVELS as i64;
        let at = whole.to_kind(Kind::Int64) + first.view([size[0], size[1], 1, 1]);
        let cut = at.view([size[0], size[1], rows, ph, columns, pw]).permute([0, 2, 4, 1, 3, 5]);
        let values = self.tables.to_kind(kind).index_select(0, &cut.reshape(-1));
        values.view([size[0] * rows * columns, -1])
    }
}

impl Model {
    /// Residual stream before stage 0 of a batch: `[batch · len, d_model]`.
    ///
    /// # Panics
    /// Where the model reads images and the batch is text, or the other way round.
    pub fn embed_batch(&self, batch: &DeviceBatch) -> Tensor {
        let x = self.embed(&batch.tokens);
        let (shape, weight, images) = match (&self.info.details.image, &self.patches, &batch.images) {
            (None, None, None) => return x,
            (Some(shape), Some(weight), Some(images)) => (shape, weight, images),
            _ => unreachable!("a model of images is given images, and others text"),
        };
        let d = self.d_model();
        let patches = images.patches(shape, self.kind).linear(weight, None::<&Tensor>);
        let mut behind_cls = x.view([-1, batch.len, d]).narrow(1, 1, batch.len - 1);
        let _ = behind_cls.g_add_(&patches.view([-1, batch.len - 1, d]));
        x
    }
}
