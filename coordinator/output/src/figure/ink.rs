//! The colours of figures and page. Drawings name them as CSS variables, `var(--ink)`, so that one drawing
//! serves light, dark and print; [`resolve`] puts in the light ones for files that stand alone.
//!
//! Orange and blue for the two signs and the categories after Okabe and Ito can be told apart with any colour blindness;
//! ramps are mixed in OKLab, so that equal steps look equal. Words have a contrast of [`READABLE`] or more on what is behind them.

use std::fmt::Write as _;

/// Steps of a ramp on either side of its middle.
pub const STEPS: usize = 12;

/// The least contrast at which words of any size can be read (WCAG 2, level AA).
pub const READABLE: f64 = 4.5;

/// One look of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light, also in print.
    Light,
    /// Light on dark.
    Dark,
}

/// Named colours: (name, light, dark).
const NAMED: &[(&str, &str, &str)] = &[
    ("paper", "#ffffff", "#14171c"),
    ("panel", "#f6f5f2", "#1c2027"),
    ("ink", "#1a1d23", "#e8e6e1"),
    ("soft", "#5b616c", "#a3a9b4"),
    ("faint", "#8b909a", "#757c88"),
    ("line", "#d9d7d1", "#363c46"),
    ("grid", "#eceae5", "#262b33"),
    ("up", "#c2500a", "#f59a55"),
    ("down", "#2167ae", "#6cb2f2"),
    ("accent", "#0b6b63", "#4fc7b8"),
    ("c0", "#8a8f99", "#8b919c"),
    ("c1", "#0068a8", "#5eb4f2"),
    ("c2", "#c24f00", "#f7945a"),
    ("c3", "#008562", "#43cfa0"),
    ("c4", "#a8457d", "#e796c2"),
    ("c5", "#8a6d00", "#dfbd4f"),
];

/// Stops of the three ramps, from the middle outwards: (name, light, dark).
const RAMPS: [(&str, [&str; 4], [&str; 4]); 3] = [
    ("hp", ["#f3f1ec", "#f4bf94", "#dd6e23", "#8c3206"], ["#262a31", "#80461f", "#ea8a43", "#ffd9b3"]),
    ("hm", ["#f3f1ec", "#a9cae8", "#3f84c6", "#10427f"], ["#262a31", "#2a5480", "#579fe3", "#c8e3ff"]),
    ("s", ["#f5f4f0", "#a5d3c9", "#2c8f84", "#07423d"], ["#20252c", "#1f5b55", "#3fb3a4", "#ccf5ec"]),
];

type Rgb = [f64; 3];

fn parse(hex: &str) -> Rgb {
    let byte = |at: usize| f64::from(u8::from_str_radix(hex.get(at..at + 2).unwrap_or("0"), 16).unwrap_or(0));
    [byte(1) / 255.0, byte(3) / 255.0, byte(5) / 255.0]
}

fn to_hex(rgb: [u8; 3]) -> String {
    format!("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2])
}

/// Amounts of light.
fn linear(rgb: Rgb) -> Rgb {
    rgb.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) })
}

/// The contrast of two colours after WCAG 2, from 1 to 21.
pub fn contrast(a: &str, b: &str) -> f64 {
    let [a, b] = [a, b].map(|hex| {
        let [red, green, blue] = linear(parse(hex));
        0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05
    });
    a.max(b) / a.min(b)
}

/// Ottosson's OKLab.
fn oklab(rgb: Rgb) -> Rgb {
    let [r, g, b] = linear(rgb);
    let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
    let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
    let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
    [
        0.210_454_255_3 * l + 0.793_617_785 * m - 0.004_072_046_8 * s,
        1.977_998_495_1 * l - 2.428_592_205 * m + 0.450_593_709_9 * s,
        0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766 * s,
    ]
}

fn from_oklab([light, a, b]: Rgb) -> [u8; 3] {
    let l = (light + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (light - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (light - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    let linear = [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
    ];
    linear.map(|c| {
        let c = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
        (c.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

/// The colour `t` of the way along stops, 0 to 1.
fn along(stops: &[&str; 4], t: f64) -> [u8; 3] {
    let t = t.clamp(0.0, 1.0) * 3.0;
    let k = (t.floor() as usize).min(2);
    let (a, b, f) = (oklab(parse(stops[k])), oklab(parse(stops[k + 1])), t - k as f64);
    from_oklab([0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * f))
}

fn stops(ramp: usize, theme: Theme) -> &'static [&'static str; 4] {
    let (_, light, dark) = &RAMPS[ramp];
    if theme == Theme::Light { light } else { dark }
}

fn named(name: &str, theme: Theme) -> &'static str {
    let colour = NAMED.iter().find(|n| n.0 == name);
    colour.map_or("#000000", |n| if theme == Theme::Light { n.1 } else { n.2 })
}

/// The colour of words on another: ink or paper, and where neither can be read on it black or white, one of which always can.
fn words_on(ground: &str, theme: Theme) -> &'static str {
    let better = |a: &'static str, b: &'static str| {
        if contrast(a, ground) >= contrast(b, ground) { a } else { b }
    };
    let own = better(named("ink", theme), named("paper", theme));
    if contrast(own, ground) >= READABLE { own } else { better("#000000", "#ffffff") }
}

/// Every variable with its colour.
pub fn all(theme: Theme) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> =
        NAMED.iter().map(|n| (n.0.to_owned(), named(n.0, theme).to_owned())).collect();
    for (ramp, (name, ..)) in RAMPS.iter().enumerate() {
        for step in 0..=STEPS {
            let colour = to_hex(along(stops(ramp, theme), step as f64 / STEPS as f64));
            if let Some(side) = name.strip_prefix('h') {
                out.push((format!("t{side}{step}"), words_on(&colour, theme).to_owned()));
            }
            out.push((format!("{name}{step}"), colour));
        }
    }
    out
}

/// The variables as declarations of a style sheet.
pub fn css(theme: Theme) -> String {
    let mut out = String::new();
    for (name, colour) in all(theme) {
        let _ = write!(out, "--{name}:{colour};");
    }
    out
}

/// A drawing with the light colours in place of the variables.
pub fn resolve(svg: &str) -> String {
    let colours: std::collections::HashMap<String, String> = all(Theme::Light).into_iter().collect();
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some((before, after)) = rest.split_once("var(--") {
        out.push_str(before);
        let (name, after) = after.split_once(')').unwrap_or((after, ""));
        out.push_str(colours.get(name).map_or("#000000", String::as_str));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The step of a signed value on a scale that ends at ±`most`, by square roots so that small values are seen beside
/// large ones; `None` for NaN.
pub fn step(value: f64, most: f64) -> Option<i32> {
    if value.is_nan() || most.is_nan() {
        return None;
    }
    let share = if most > 0.0 { (value.abs() / most).min(1.0).sqrt() } else { 0.0 };
    Some((share * STEPS as f64).round() as i32 * if value < 0.0 { -1 } else { 1 })
}

/// The variable of a diverging step.
pub fn diverging(step: i32) -> String {
    let name = if step < 0 { "hm" } else { "hp" };
    format!("var(--{name}{})", step.unsigned_abs().min(STEPS as u32))
}

/// The variable of a share from 0 to 1 on the sequential ramp.
pub fn sequential(share: f64) -> String {
    format!("var(--s{})", (share.clamp(0.0, 1.0) * STEPS as f64).round() as usize)
}

/// The variables of words on the steps of a ramp.
macro_rules! words {
    ($side:literal: $($step:literal)+) => {
        [$(concat!("var(--t", $side, $step, ")")),+]
    };
}

/// Those of the ramps above and below 0.
const WORDS: [[&str; STEPS + 1]; 2] =
    [words!("p": 0 1 2 3 4 5 6 7 8 9 10 11 12), words!("m": 0 1 2 3 4 5 6 7 8 9 10 11 12)];

/// The colour of text on a diverging step, which each theme has its own for: what is dark in one is light in the other.
pub fn text_on(step: i32) -> &'static str {
    WORDS[usize::from(step < 0)][(step.unsigned_abs() as usize).min(STEPS)]
}

/// The colour of text that names what is drawn in a colour: the grey of random orders is too faint for words.
pub fn text_in(colour: &'static str) -> &'static str {
    if colour == "var(--c0)" { "var(--soft)" } else { colour }
}

/// The palette of images of steps: entry k is step k − [`STEPS`], the last one stands for nothing.
pub fn palette(theme: Theme) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * (2 * STEPS + 2));
    for step in -(STEPS as i32)..=STEPS as i32 {
        let ramp = usize::from(step < 0);
        out.extend(along(stops(ramp, theme), f64::from(step.abs()) / STEPS as f64));
    }
    let paper = NAMED[0];
    out.extend(
        parse(if theme == Theme::Light { paper.1 } else { paper.2 }).map(|c| (c * 255.0).round() as u8),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_begin_and_end_at_their_stops_and_every_variable_resolves() {
        let light: std::collections::HashMap<String, String> = all(Theme::Light).into_iter().collect();
        assert_eq!((light["hp0"].as_str(), light["hp12"].as_str()), ("#f3f1ec", "#8c3206"));
        assert_eq!(light["hm0"], light["hp0"]);
        assert_eq!(resolve("a var(--ink) b var(--hm12)"), "a #1a1d23 b #10427f");
        for step in -12..=12 {
            assert!(!resolve(&diverging(step)).contains("000000"), "{step}");
        }
        assert_eq!((step(-1.0, 1.0), step(0.25, 1.0), step(f64::NAN, 1.0)), (Some(-12), Some(6), None));
        assert_eq!(palette(Theme::Dark).len(), 3 * 26);
    }

    #[test]
    fn words_can_be_read_on_every_step_and_in_every_colour() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        assert!((contrast("#777777", "#ffffff") - 4.478).abs() < 1e-3);
        for theme in [Theme::Light, Theme::Dark] {
            let colours: std::collections::HashMap<String, String> = all(theme).into_iter().collect();
            let of = |variable: &str| {
                colours[variable.trim_start_matches("var(--").trim_end_matches(')')].as_str()
            };
            for step in -12..=12 {
                let seen = contrast(of(text_on(step)), of(&diverging(step)));
                assert!(seen >= READABLE, "{theme:?}, step {step}: {seen}");
            }
            let lines =
                ["greedy", "importance", "gradient", "rollout", "random-00"].map(super::super::curve::colour);
            for colour in lines.into_iter().chain(["var(--c5)", "var(--up)", "var(--down)", "var(--ink)"]) {
                let seen = contrast(of(text_in(colour)), of("var(--paper)"));
                assert!(seen >= READABLE, "{theme:?}, {colour}: {seen}");
            }
        }
    }
}
