//! Pixels: images of steps inside drawings, and drawings as PNG files, with the fonts that this crate carries.

use super::ink::{self, Theme};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use resvg::{tiny_skia, usvg};
use std::sync::{Arc, LazyLock};

/// The font of PNG files.
const REGULAR: &[u8] = include_bytes!("../../fonts/Inter-Regular.otf");
const SEMIBOLD: &[u8] = include_bytes!("../../fonts/Inter-SemiBold.otf");

/// The same for the page: (weight, WOFF2).
pub const WEB_FONTS: [(u32, &[u8]); 2] = [
    (400, include_bytes!("../../fonts/Inter-Regular.woff2")),
    (600, include_bytes!("../../fonts/Inter-SemiBold.woff2")),
];

/// Pixels of a PNG file to one of its drawing.
const SCALE: f32 = 2.0;

static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(REGULAR.to_vec());
    fonts.load_font_data(SEMIBOLD.to_vec());
    Arc::new(fonts)
});

/// A drawing that stands alone (light colours, see [`ink::resolve`]) as a PNG file at twice its size. Letters that the
/// embedded font lacks are left out: no font of the system is used, so that equal drawings give equal bytes.
///
/// # Errors
/// Where the drawing isn't SVG.
pub fn png_of(svg: &str) -> anyhow::Result<Vec<u8>> {
    let options = usvg::Options {
        fontdb: Arc::clone(&FONTS),
        font_family: "Inter".into(),
        image_rendering: usvg::ImageRendering::OptimizeSpeed,
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(svg, &options).context("a figure can't be read back")?;
    let size = tree.size().to_int_size().scale_by(SCALE).context("a figure is too large")?;
    let mut pixels =
        tiny_skia::Pixmap::new(size.width(), size.height()).context("a figure is too large for a picture")?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    let mut rgb = Vec::with_capacity(pixels.pixels().len() * 3);
    for p in pixels.pixels() {
        // The paper is opaque: no colour is to be divided by its alpha.
        rgb.extend([p.red(), p.green(), p.blue()]);
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, size.width(), size.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.write_header()?.write_image_data(&rgb)?;
    Ok(out)
}

/// An image of steps (see [`ink::step`]); `None` where there is nothing.
#[derive(Debug)]
pub struct Steps {
    /// `data:` address of a PNG file in light colours.
    pub light: String,
    /// Its palette chunk in dark ones, base64: it takes the place of the light one, which begins at byte 33.
    pub dark: String,
}

/// Where a PNG's palette chunk begins: behind the signature and the header.
const PALETTE_AT: usize = 33;

/// Encodes an image, row by row.
///
/// # Errors
/// Where the number of steps isn't `width` × `height`.
pub fn steps(width: u32, height: u32, steps: &[Option<i32>]) -> anyhow::Result<Steps> {
    let most = ink::STEPS as i32;
    let index = |s: &Option<i32>| s.map_or(2 * most + 1, |s| s.clamp(-most, most) + most) as u8;
    let pixels: Vec<u8> = steps.iter().map(index).collect();
    let encode = |theme| -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(ink::palette(theme));
        encoder.set_compression(png::Compression::High);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(out)
    };
    let (light, dark) = (encode(Theme::Light)?, encode(Theme::Dark)?);
    // Length, name, colours and checksum.
    let end = PALETTE_AT + 12 + ink::palette(Theme::Dark).len();
    let chunk =
        dark.get(PALETTE_AT..end).filter(|c| c[4..8] == *b"PLTE").context("a PNG without its palette")?;
    Ok(Steps {
        light: format!("data:image/png;base64,{}", STANDARD.encode(&light)),
        dark: STANDARD.encode(chunk),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::draw::{Svg, Type};

    #[test]
    fn text_is_drawn_without_fonts_of_the_system() {
        let blank = |text: &str| {
            let mut svg = Svg::new(60.0, 20.0);
            svg.rect([0.0, 0.0, 60.0, 20.0], "#ffffff", "");
            svg.text(2.0, 15.0, text, Type::NAME.bold());
            png_of(&ink::resolve(&svg.finish("text"))).unwrap()
        };
        let (none, some) = (blank(""), blank("ΔL3 ≤"));
        let decode = |bytes: &[u8]| {
            let mut reader = png::Decoder::new(std::io::Cursor::new(bytes.to_vec())).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            (info.width, info.height, pixels)
        };
        let (a, b) = (decode(&none), decode(&some));
        assert_eq!((a.0, a.1), (120, 40));
        assert!(a.2.iter().all(|&p| p == 255), "an empty picture");
        assert!(b.2.iter().filter(|&&p| p < 100).count() > 200, "no letters");
        assert!(png_of("<svg").is_err());
    }

    #[test]
    fn a_palette_can_be_exchanged_in_place() {
        let image = steps(2, 2, &[Some(-12), Some(0), Some(12), None]).unwrap();
        let mut bytes = STANDARD.decode(image.light.rsplit(',').next().unwrap()).unwrap();
        let dark = STANDARD.decode(&image.dark).unwrap();
        assert_eq!(&bytes[PALETTE_AT + 4..PALETTE_AT + 8], b"PLTE");
        bytes[PALETTE_AT..PALETTE_AT + dark.len()].copy_from_slice(&dark);
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels[9..12], [0x14, 0x17, 0x1c], "dark paper");
        assert!(steps(3, 3, &[None]).is_err());
    }
}
