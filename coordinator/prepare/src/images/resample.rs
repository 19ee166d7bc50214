//! Resampling of 8-bit planes with the same levels as Pillow's `Image.resize`, which transformers' image processors call.
//!
//! A filter is widened by the factor of reduction, so that every pixel counts. Rows are resampled first, then columns,
//! and levels are rounded in between. Weights are rounded to multiples of 2⁻²² and sums are exact.

/// Kind of resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Windowed sinc of three lobes.
    Lanczos,
    /// Triangle.
    Bilinear,
    /// Cubic, a = −1/2.
    Bicubic,
    /// Mean of the pixels that a new one covers.
    Box,
    /// Windowed sinc of one lobe.
    Hamming,
}

/// Bits behind the point of a weight.
const BITS: u32 = 22;

impl Filter {
    /// The filter of Pillow's number.
    #[must_use]
    pub fn numbered(number: u64) -> Option<Self> {
        let all = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];
        usize::try_from(number).ok().and_then(|n| all.get(n)).copied()
    }

    /// Distance from which on it is 0.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let far = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - far).max(0.0),
            Self::Hamming if far == 0.0 => 1.0,
            Self::Hamming if far >= 1.0 => 0.0,
            Self::Hamming => {
                let angle = far * std::f64::consts::PI;
                angle.sin() / angle * (0.54 + 0.46 * angle.cos())
            }
            Self::Bicubic if far < 1.0 => ((1.5 * far) - 2.5) * far * far + 1.0,
            Self::Bicubic if far < 2.0 => (((far - 5.0) * far + 8.0) * far - 4.0) * -0.5,
            Self::Bicubic => 0.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let angle = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { angle.sin() / angle }
}

/// `plane [height, width]` of size `from`, brought to size `to`; sizes are (height, width), none of them 0.
#[must_use]
pub fn resize(plane: &[u8], from: [u32; 2], to: [u32; 2], filter: Filter) -> Vec<u8> {
    let ([height, width], [new_height, new_width]) = (from.map(|n| n as usize), to.map(|n| n as usize));
    if filter == Filter::Nearest {
        let (rows, columns) = (nearest(height, new_height), nearest(width, new_width));
        return rows.iter().flat_map(|&r| columns.iter().map(move |&c| plane[r * width + c])).collect();
    }
    let mut levels = plane.to_vec();
    if new_width != width {
        let weights = weights(width, new_width, filter);
        let row = |row: &[u8]| -> Vec<u8> {
            weights
                .iter()
                .map(|(first, w)| level(w.iter().zip(&row[*first..]).map(|(w, &l)| (*w, l))))
                .collect()
        };
        levels = levels.chunks_exact(width).flat_map(row).collect();
    }
    if new_height != height {
        let weights = weights(height, new_height, filter);
        let pixel = |first: usize, w: &[i64], column: usize| {
            let below = levels[first * new_width..].iter().skip(column).step_by(new_width);
            level(w.iter().zip(below).map(|(w, &l)| (*w, l)))
        };
        levels = weights
            .iter()
            .flat_map(|(first, w)| (0..new_width).map(|column| pixel(*first, w, column)).collect::<Vec<_>>())
            .collect();
    }
    levels
}

/// For each new pixel the old one that lies nearest to its middle. Middles are summed up one by one, as Pillow does.
fn nearest(old: usize, new: usize) -> Vec<usize> {
    let step = old as f64 / new as f64;
    let mut middle = step * 0.5;
    (0..new)
        .map(|_| {
            let at = (middle as usize).min(old - 1);
            middle += step;
            at
        })
        .collect()
}

/// For each new pixel the first old one that counts, and the weights from there on, in multiples of 2⁻²².
fn weights(old: usize, new: usize, filter: Filter) -> Vec<(usize, Vec<i64>)> {
    let scale = old as f64 / new as f64;
    let wide = scale.max(1.0);
    let support = filter.support() * wide;
    let one = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        // Halves are added and the rest cut off, as Pillow rounds; what is below 0 becomes 0.
        let first = (centre - support + 0.5) as usize;
        let last = ((centre + support + 0.5) as usize).min(old);
        let each: Vec<f64> =
            (first..last).map(|at| filter.at((at as f64 - centre + 0.5) * (1.0 / wide))).collect();
        let total: f64 = each.iter().sum();
        let whole = |w: f64| {
            let scaled = if total == 0.0 { w } else { w / total } * f64::from(1u32 << BITS);
            (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i64
        };
        (first, each.into_iter().map(whole).collect())
    };
    (0..new).map(one).collect()
}

/// Σ weight · level, rounded, within 0 to 255.
fn level(parts: impl Iterator<Item = (i64, u8)>) -> u8 {
    let sum = parts.fold(1i64 << (BITS - 1), |sum, (w, l)| sum + w * i64::from(l));
    (sum >> BITS).clamp(0, 255) as u8
}
