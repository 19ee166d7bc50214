//! PNG and JPEG files, to planes of 8-bit levels.

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::path::Path;

/// Largest image file that is read.
const MAX_FILE: u64 = 64 << 20;
/// Longest side of an image, in pixels.
const LONGEST: u32 = 1 << 14;
/// Most pixels of an image.
const MOST_PIXELS: u64 = 100_000_000;

/// Planes of an image.
pub struct Planes {
    pub height: u32,
    pub width: u32,
    /// `[channels, height, width]`.
    pub levels: Vec<u8>,
}

/// The planes of a file for a model of `channels` channels: 3, to which a gray image is brought by repeating it, or
/// 1, for which it must be gray. What is transparent is shown in the colour that it has.
pub fn planes(file: &Path, channels: u32) -> Result<Planes, String> {
    let size = std::fs::metadata(file).map_err(|e| e.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("{size} bytes are more than the {MAX_FILE} that an image file may have"));
    }
    let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
    let format = match image::guess_format(&bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        _ => return Err("it is neither a PNG nor a JPEG file; convert it".into()),
    };
    if format == ImageFormat::Jpeg {
        whole_jpeg(&bytes)?;
    }
    let damaged = |e: image::ImageError| format!("it is damaged, or no image: {e}");
    let mut reader = ImageReader::with_format(Cursor::new(bytes.as_slice()), format);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST), Some(LONGEST));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width > LONGEST || height > LONGEST || u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!("{height} x {width} pixels are too many; make it smaller"));
    }
    if !matches!(decoder.orientation(), Ok(image::metadata::Orientation::NoTransforms)) {
        return Err("its EXIF data say that it is to be turned, which isn't done; save it upright".into());
    }
    let kept = match decoder.color_type() {
        ColorType::L8 => [1, 1],
        ColorType::La8 => [2, 1],
        ColorType::Rgb8 => [3, 3],
        ColorType::Rgba8 => [4, 3],
        other => return Err(format!("{other:?} levels aren't supported; save it with 8 bits a channel")),
    };
    let [stride, own] = kept;
    if channels == 1 && own != 1 {
        return Err("it has colours, but the model takes gray images; convert it".into());
    }
    let count = usize::try_from(decoder.total_bytes()).map_err(|e| e.to_string())?;
    let mut all = vec![0; count];
    decoder.read_image(&mut all).map_err(damaged)?;
    let plane = |channel: usize| all.chunks_exact(stride).map(move |pixel| pixel[channel.min(own - 1)]);
    Ok(Planes { height, width, levels: (0..channels as usize).flat_map(plane).collect() })
}

/// Refuses a JPEG file that ends early, which the decoder fills with gray, and one of four inks.
fn whole_jpeg(bytes: &[u8]) -> Result<(), String> {
    let truncated = || "it is truncated; fetch it again".to_owned();
    let mut at = 2;
    loop {
        let marker = bytes.get(at..at + 4).ok_or_else(truncated)?;
        if marker[0] != 0xff {
            return Err("it is damaged: a segment doesn't begin where the one before it ends".into());
        }
        if marker[1] == 0xff {
            // A filler.
            at += 1;
            continue;
        }
        let length = usize::from(marker[2]) << 8 | usize::from(marker[3]);
        // Frames are C0 to CF, but for tables (C4, CC) and an extension (C8); the tenth byte counts components.
        if matches!(marker[1], 0xc0..=0xcf) && ![0xc4, 0xc8, 0xcc].contains(&marker[1]) {
            let components = *bytes.get(at + 9).ok_or_else(truncated)?;
            if components != 1 && components != 3 {
                return Err(format!("it has {components} colour components (CMYK, say); save it as RGB"));
            }
        }
        at += 2 + length;
        if marker[1] == 0xda {
            break;
        }
    }
    // Within compressed data FF never stands before D9, so that this is the end of the image.
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.windows(2).any(|w| w == [0xff, 0xd9]) { Ok(()) } else { Err(truncated()) }
}
