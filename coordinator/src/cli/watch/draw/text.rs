//! Numbers and times in few characters.

use ratatui::text::Span;

/// At most so many columns of a text; where more are cut off, an ellipsis says so.
pub fn cut(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        let longer = format!("{out}{c}");
        if Span::raw(&longer).width() + 1 > width {
            break;
        }
        out = longer;
    }
    if width > 0 { out + "…" } else { out }
}

/// A time in its two largest units.
pub fn time(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".to_owned();
    }
    let s = seconds.round().max(0.0) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..600 => format!("{} min {:02} s", s / 60, s % 60),
        600..3600 => format!("{} min", s / 60),
        3600..86400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86400, s / 3600 % 24),
    }
}

/// A rate a second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 100.0 => format!("{r:.0}/s"),
        r if r >= 0.1 || r == 0.0 => format!("{r:.1}/s"),
        r => format!("{:.1}/min", r * 60.0),
    }
}

/// A share in whole per cent: 100 only where nothing is left.
pub fn percent(done: u64, of: u64) -> String {
    let share = if of == 0 { 100 } else { (u128::from(done) * 100 / u128::from(of)).min(100) };
    format!("{share:>3} %")
}

/// A number with four decimals, or in powers of ten.
pub fn number(v: f64) -> String {
    match v.abs() {
        0.0 => "0".to_owned(),
        a if !a.is_finite() => format!("{v}"),
        a if (1e-3..1e4).contains(&a) => format!("{v:.4}"),
        _ => format!("{v:.2e}"),
    }
}

/// [`number`] with its sign.
pub fn signed(v: f64) -> String {
    if v > 0.0 { format!("+{}", number(v)) } else { number(v) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_true() {
        assert_eq!(
            [3.2, 61.0, 640.0, 7260.0, 90_000.0].map(time),
            ["3 s", "1 min 01 s", "10 min", "2 h 01 min", "1 d 01 h"]
        );
        assert_eq!(time(f64::INFINITY), "?");
        assert_eq!([250.0, 4.25, 0.0, 0.05].map(rate), ["250/s", "4.2/s", "0.0/s", "3.0/min"]);
        assert_eq!(
            [(0, 0), (999, 1000), (1, 3), (3, 3)].map(|(a, b)| percent(a, b)),
            ["100 %", " 99 %", " 33 %", "100 %"]
        );
        assert_eq!(
            [0.5, -0.001_25, 3e-7, 123_456.0, 0.0].map(signed),
            ["+0.5000", "-0.0013", "+3.00e-7", "+1.23e5", "0"]
        );
        assert_eq!(
            (cut("abcdef", 4), cut("abc", 3), cut("ab", 0)),
            ("abc…".into(), "abc".into(), String::new())
        );
    }
}
