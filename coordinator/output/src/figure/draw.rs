//! Writes SVG: shapes, text, scales and ticks. Coordinates are in pixels at the figure's natural size.

use std::fmt::Write as _;

/// Fonts of a figure, the embedded one first.
pub const FONTS: &str = "Inter, 'Helvetica Neue', Arial, sans-serif";

/// A drawing that grows.
#[derive(Debug)]
pub struct Svg {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    body: String,
}

/// How a text is set.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    size: f64,
    fill: &'static str,
    bold: bool,
    anchor: &'static str,
}

impl Type {
    /// Ticks and small remarks.
    pub const SMALL: Self = Self { size: 11.0, fill: "var(--soft)", bold: false, anchor: "start" };
    /// Names of what is drawn.
    pub const NAME: Self = Self { size: 12.0, fill: "var(--ink)", bold: false, anchor: "start" };

    /// Ends at the place.
    pub const fn end(mut self) -> Self {
        self.anchor = "end";
        self
    }

    /// Is centred at the place.
    pub const fn middle(mut self) -> Self {
        self.anchor = "middle";
        self
    }

    /// Semi-bold.
    pub const fn bold(mut self) -> Self {
        self.bold = true;
        self
    }

    /// In another colour.
    pub const fn fill(mut self, fill: &'static str) -> Self {
        self.fill = fill;
        self
    }

    /// In another size.
    pub const fn size(mut self, size: f64) -> Self {
        self.size = size;
        self
    }
}

/// A coordinate: at most two decimals.
pub fn px(v: f64) -> String {
    let mut s = format!("{v:.2}");
    while s.contains('.') && (s.ends_with('0') || s.ends_with('.')) {
        s.pop();
    }
    if s == "-0" { "0".into() } else { s }
}

/// Text as XML or HTML, also in attributes.
pub fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("&#10;"),
            // XML has no other control characters.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The attributes of a mark that tells its numbers when it is pointed at; lines end with `\n`.
pub fn tip(text: &str) -> String {
    format!("data-tip=\"{}\"", escape(text))
}

impl Svg {
    /// An empty drawing.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    // Writing to a String can't fail.
    fn put(&mut self, args: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(args);
    }

    /// An element as it stands.
    pub fn raw(&mut self, element: &str) {
        self.body.push_str(element);
    }

    /// A rectangle: x, y, width, height.
    pub fn rect(&mut self, [x, y, w, h]: [f64; 4], fill: &str, more: &str) {
        let (x, y, w, h) = (px(x), px(y), px(w.max(0.0)), px(h.max(0.0)));
        self.put(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{fill}\" {more}/>"
        ));
    }

    /// A line: x1, y1, x2, y2.
    pub fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], stroke: &str, width: f64, more: &str) {
        let (x1, y1, x2, y2, w) = (px(x1), px(y1), px(x2), px(y2), px(width));
        self.put(format_args!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"{stroke}\" stroke-width=\"{w}\" {more}/>"
        ));
    }

    /// A circle: x, y, radius.
    pub fn circle(&mut self, [x, y, r]: [f64; 3], fill: &str, more: &str) {
        let (x, y, r) = (px(x), px(y), px(r));
        self.put(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{fill}\" {more}/>"));
    }

    /// A path.
    pub fn path(&mut self, d: &str, more: &str) {
        self.put(format_args!("<path d=\"{d}\" {more}/>"));
    }

    /// A line through points.
    pub fn polyline(&mut self, points: &[(f64, f64)], stroke: &str, width: f64, more: &str) {
        if points.len() > 1 {
            let d = trace(points);
            let w = px(width);
            self.put(format_args!(
                "<path d=\"{d}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{w}\" stroke-linejoin=\"round\" {more}/>"
            ));
        }
    }

    /// The area between an upper and a lower line.
    pub fn band(&mut self, upper: &[(f64, f64)], lower: &[(f64, f64)], fill: &str, more: &str) {
        if upper.len() > 1 && lower.len() > 1 {
            let back: Vec<(f64, f64)> = lower.iter().rev().copied().collect();
            let d = format!("{}L{}Z", trace(upper), &trace(&back)[1..]);
            self.put(format_args!("<path d=\"{d}\" fill=\"{fill}\" {more}/>"));
        }
    }

    /// Text on its base line.
    pub fn text(&mut self, x: f64, y: f64, text: &str, set: Type) {
        self.text_with(x, y, text, set, "");
    }

    /// Text with more attributes.
    pub fn text_with(&mut self, x: f64, y: f64, text: &str, set: Type, more: &str) {
        let (x, y, size, text) = (px(x), px(y), px(set.size), escape(text));
        let weight = if set.bold { " font-weight=\"600\"" } else { "" };
        let anchor = if set.anchor == "start" { "" } else { set.anchor };
        let anchor = if anchor.is_empty() { String::new() } else { format!(" text-anchor=\"{anchor}\"") };
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\"{weight}{anchor} {more}>{text}</text>",
            set.fill
        ));
    }

    /// Text with a rim of paper, readable on lines.
    pub fn halo(&mut self, x: f64, y: f64, text: &str, set: Type) {
        let rim =
            "stroke=\"var(--paper)\" stroke-width=\"3.5\" stroke-linejoin=\"round\" paint-order=\"stroke\"";
        self.text_with(x, y, text, set, rim);
    }

    /// Begins a group.
    pub fn open(&mut self, attributes: &str) {
        self.put(format_args!("<g {attributes}>"));
    }

    /// Ends a group.
    pub fn close(&mut self) {
        self.body.push_str("</g>");
    }

    /// The drawing, said in words by `label`.
    pub fn finish(self, label: &str) -> String {
        let (w, h, label) = (px(self.width), px(self.height), escape(label));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" font-family=\"{FONTS}\" role=\"img\" aria-label=\"{label}\">{}</svg>",
            self.body
        )
    }
}

fn trace(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (k, (x, y)) in points.iter().enumerate() {
        let _ = write!(d, "{}{} {}", if k == 0 { "M" } else { "L" }, px(*x), px(*y));
    }
    d
}

/// A straight scale.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// Values `from` onto pixels `to`.
    pub fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        let from = if from.1 > from.0 { from } else { (from.0 - 0.5, from.0 + 0.5) };
        Self { from, to }
    }

    /// The pixel of a value.
    pub fn at(&self, v: f64) -> f64 {
        self.to.0 + (v - self.from.0) / (self.from.1 - self.from.0) * (self.to.1 - self.to.0)
    }

    /// [`Self::at`], held within the scale.
    pub fn within(&self, v: f64) -> f64 {
        self.at(v.clamp(self.from.0, self.from.1))
    }

    /// Round values along the scale, about `n`.
    pub fn ticks(&self, n: usize) -> Vec<f64> {
        ticks(self.from.0, self.from.1, n)
    }
}

/// Round values within a range, about `n`.
pub fn ticks(low: f64, high: f64, n: usize) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 || n == 0 {
        return Vec::new();
    }
    let rough = span / n as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|m| m * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0)
            * power;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).take(50).map(|k| k as f64 * step).collect()
}

/// Labels of ticks, as many decimals on each as the finest needs.
pub fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let step = ticks.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let most = ticks.iter().fold(0.0f64, |m, t| m.max(t.abs()));
    if !step.is_finite() || most >= 1e5 || (most > 0.0 && most < 1e-3) {
        return ticks.iter().map(|&t| number(t)).collect();
    }
    let fits = |digits: &usize| {
        let unit = 10f64.powi(*digits as i32);
        ticks.iter().all(|t| (t * unit - (t * unit).round()).abs() < 1e-6 * unit * step)
    };
    let digits = (0..8).find(fits).unwrap_or(8);
    ticks.iter().map(|t| minus(&format!("{t:.digits$}"))).collect()
}

/// The true minus sign in place of a hyphen.
fn minus(s: &str) -> String {
    s.replace('-', "−")
}

/// A number as people set it: three significant digits or so, a true minus sign, powers of ten.
pub fn number(v: f64) -> String {
    let a = v.abs();
    if !v.is_finite() {
        return "n/a".into();
    }
    if a == 0.0 {
        return "0".into();
    }
    if (1e-3..1e5).contains(&a) {
        // Rounded first: 9.996 has one digit before the point less than 10.0.
        let rounded: f64 = format!("{a:.2e}").parse().unwrap_or(a);
        let digits = (2 - rounded.log10().floor() as i32).clamp(0, 5) as usize;
        return minus(&format!("{v:.digits$}"));
    }
    let text = format!("{v:.1e}");
    let (m, e) = text.split_once('e').unwrap_or((&text, "0"));
    let raised: String = e
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            c => c.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(c),
        })
        .collect();
    minus(&format!("{}×10{raised}", m.trim_end_matches(".0")))
}

/// [`number`] with its sign.
pub fn signed(v: f64) -> String {
    if v > 0.0 { format!("+{}", number(v)) } else { number(v) }
}

/// An interval.
pub fn interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", signed(low), signed(high))
}

/// Decimals at which the largest of some values has three digits.
pub fn decimals(values: impl Iterator<Item = f64>) -> usize {
    let most = values.filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    if most > 0.0 { (2 - most.log10().floor() as i32).clamp(0, 7) as usize } else { 2 }
}

/// A number with its sign and so many decimals.
pub fn fixed(v: f64, decimals: usize) -> String {
    if !v.is_finite() {
        return "n/a".into();
    }
    let text = minus(&format!("{v:.decimals$}"));
    let zero = !text.chars().any(|c| ('1'..='9').contains(&c));
    if zero {
        text.trim_start_matches('−').to_owned()
    } else if v > 0.0 {
        format!("+{text}")
    } else {
        text
    }
}

/// A q-value.
pub fn q_value(q: f64) -> String {
    if q.is_nan() {
        "n/a".into()
    } else if q < 1e-4 {
        "< 0.0001".into()
    } else {
        number(q)
    }
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    if share.is_finite() { minus(&format!("{:.1} %", 100.0 * share)) } else { "n/a".into() }
}

/// [`percent`] with its interval, where that is known.
pub fn percent_within(share: f64, interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{} [{}, {}]", percent(share), percent(low), percent(high)),
        None => percent(share),
    }
}

/// A count with thin spaces at thousands.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (k, c) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// About how wide a text is.
pub fn width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | 'I' | '!' => 0.3,
        ' ' | 't' | 'f' | 'r' | '(' | ')' | '[' | ']' => 0.36,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
        '0'..='9' | '+' | '−' => 0.65,
        c if c.is_uppercase() => 0.68,
        c if c as u32 > 0x2e80 => 1.0,
        _ => 0.58,
    };
    size * text.chars().map(em).sum::<f64>()
}

/// A text cut to about so many characters.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(most.saturating_sub(1)).collect();
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_set_as_people_do() {
        assert_eq!(number(-0.012_34), "−0.0123");
        assert_eq!(number(9.996), "10.0");
        assert_eq!(number(1234.5), "1234");
        assert_eq!(number(-1.2e-7), "−1.2×10⁻⁷");
        assert_eq!(number(f64::NAN), "n/a");
        assert_eq!(signed(2.0), "+2.00");
        assert_eq!(count(36_315), "36,315");
        assert_eq!(decimals([0.0978, -0.2113].into_iter()), 3);
        assert_eq!(
            (fixed(0.0978, 3), fixed(-0.0001, 3), fixed(-12.0, 0)),
            ("+0.098".into(), "0.000".into(), "−12".into())
        );
        assert_eq!(percent_within(-0.2, Some((-0.31, 0.0))), "−20.0 % [−31.0 %, 0.0 %]");
        assert_eq!(percent_within(0.5, None), "50.0 %");
        assert_eq!(px(1.50), "1.5");
        assert_eq!(px(-0.001), "0");
    }

    #[test]
    fn ticks_are_round_and_labelled_alike() {
        assert_eq!(tick_labels(&ticks(0.0, 1.0, 4)), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(tick_labels(&ticks(-0.2, 0.4, 3)), ["−0.2", "0.0", "0.2", "0.4"]);
        assert!(ticks(1.0, 1.0, 5).is_empty() && ticks(f64::NAN, 1.0, 5).is_empty());
        let scale = Scale::new((0.0, 2.0), (10.0, 30.0));
        assert_eq!((scale.at(1.0), scale.within(9.0)), (20.0, 30.0));
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href='x'>&\u{1}"), "&lt;a href=&#39;x&#39;&gt;&amp;\u{fffd}");
        assert_eq!(tip("a\n\"b\""), "data-tip=\"a&#10;&quot;b&quot;\"");
        let mut svg = Svg::new(10.0, 20.0);
        svg.text(1.0, 2.0, "<", Type::SMALL.end());
        assert!(svg.finish("a < b").contains("aria-label=\"a &lt; b\""));
    }
}
