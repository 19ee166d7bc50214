//! Rows of estimates with their 95 % intervals on one axis, each named and written out.

use super::draw::{Scale, Svg, Type, cut, decimals, fixed, tick_labels, tip, width};

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The estimate: value, low, high.
    pub value: [f64; 3],
    /// The colour of its mark: a CSS variable.
    pub colour: &'static str,
    /// Whether the mark is filled: what is resolved is.
    pub filled: bool,
    /// Another value on the same axis, drawn as a tick.
    pub beside: Option<f64>,
    /// What the mark tells.
    pub tip: String,
}

/// How a chart is set.
#[derive(Clone, Debug)]
pub struct Forest<'a> {
    /// What the axis measures.
    pub axis: &'a str,
    /// What [`Row::beside`] is, for the line under the axis.
    pub beside: Option<&'a str>,
    /// Values that the axis must show.
    pub span: (f64, f64),
    /// The least and the most that the axis shows: intervals end there.
    pub within: (f64, f64),
    /// Width of the chart.
    pub width: f64,
    /// The label of the whole for those who can't see it.
    pub label: &'a str,
}

const ROW: f64 = 23.0;
/// [`Forest::within`] where the axis goes as far as the rows do.
pub const ALL: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// Draws rows from above.
pub fn forest(set: &Forest<'_>, rows: &[Row]) -> String {
    parted(set, rows, None)
}

/// [`forest`] of both ends of a longer list: in front of the row at that place a line says what is left out.
pub fn parted(set: &Forest<'_>, rows: &[Row], left_out: Option<(usize, &str)>) -> String {
    let names: Vec<String> = rows.iter().map(|r| cut(&r.name, 46)).collect();
    let left = names.iter().map(|n| width(n, 12.0)).fold(30.0, f64::max).min(set.width * 0.42) + 14.0;
    // One number of decimals for all, from what most rows need: one wide interval isn't to blur the others.
    let mut sizes: Vec<f64> =
        rows.iter().map(|r| r.value[0].abs()).filter(|v| v.is_finite() && *v > 0.0).collect();
    sizes.sort_by(f64::total_cmp);
    let digits = decimals(sizes.get(sizes.len() / 2).copied().into_iter());
    let bounds = |r: &Row| format!("[{}, {}]", fixed(r.value[1], digits), fixed(r.value[2], digits));
    let value_wide = rows.iter().map(|r| width(&fixed(r.value[0], digits), 12.0)).fold(36.0, f64::max) + 8.0;
    let right = value_wide + rows.iter().map(|r| width(&bounds(r), 11.0)).fold(70.0, f64::max) + 10.0;
    let (top, foot) = (6.0, if set.beside.is_some() { 58.0 } else { 40.0 });
    let bottom = top + ROW * (rows.len() + usize::from(left_out.is_some())) as f64;
    let height = bottom + foot;
    let mut svg = Svg::new(set.width, height);
    let finite =
        |r: &Row| r.value.into_iter().chain(r.beside).filter(|v| v.is_finite()).collect::<Vec<f64>>();
    let all: Vec<f64> = rows.iter().flat_map(finite).collect();
    let low = all.iter().copied().fold(set.span.0, f64::min).max(set.within.0);
    let high = all.iter().copied().fold(set.span.1, f64::max).min(set.within.1);
    let inside = |v: f64| v.clamp(low, high);
    let scale = Scale::new((low, high), (left + 8.0, set.width - right - 12.0));
    let ticks = scale.ticks(4);
    let mut labelled = f64::NEG_INFINITY;
    for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
        let x = scale.at(*tick);
        let zero = tick.abs() < 1e-12;
        svg.line([x, top, x, bottom], if zero { "var(--faint)" } else { "var(--grid)" }, 1.0, "");
        // On a narrow axis a label that would touch the one before it is left out; its line stays.
        let half = width(&label, 11.0) / 2.0;
        if x - half >= labelled {
            svg.text(x, bottom + 16.0, &label, Type::SMALL.middle());
            labelled = x + half + 6.0;
        }
    }
    svg.text((scale.at(low) + scale.at(high)) / 2.0, bottom + 33.0, set.axis, Type::SMALL.middle());
    let line = |k: usize| top + ROW * (k as f64 + 0.5);
    if let Some((at, text)) = left_out {
        svg.text(left, line(at) + 4.0, text, Type::SMALL.end());
    }
    for (k, (row, name)) in rows.iter().zip(&names).enumerate() {
        let y = line(k + usize::from(left_out.is_some_and(|l| k >= l.0)));
        let [value, low, high] = row.value;
        svg.open(&format!("class=\"m\" {}", tip(&row.tip)));
        svg.rect([0.0, y - ROW / 2.0, set.width, ROW], "transparent", "class=\"hit\"");
        svg.text(left, y + 4.0, name, Type::NAME.end());
        if let Some(beside) = row.beside.filter(|v| v.is_finite()) {
            let x = scale.at(inside(beside));
            svg.line([x, y - 7.0, x, y + 7.0], "var(--faint)", 2.0, "");
        }
        if low.is_finite() && high.is_finite() {
            svg.line(
                [scale.at(inside(low)), y, scale.at(inside(high)), y],
                row.colour,
                2.0,
                "stroke-linecap=\"round\"",
            );
        }
        if value.is_finite() {
            let fill = if row.filled { row.colour } else { "var(--paper)" };
            svg.circle(
                [scale.at(inside(value)), y, 4.6],
                fill,
                &format!("stroke=\"{}\" stroke-width=\"1.8\"", row.colour),
            );
        }
        svg.text(set.width - right + value_wide, y + 4.0, &fixed(value, digits), Type::NAME.bold().end());
        if low.is_finite() && high.is_finite() {
            svg.text(set.width, y + 4.0, &bounds(row), Type::SMALL.end());
        }
        svg.close();
    }
    if let Some(beside) = set.beside {
        let x = left + 8.0;
        svg.line([x, bottom + 43.0, x, bottom + 55.0], "var(--faint)", 2.0, "");
        svg.text(x + 8.0, bottom + 53.0, beside, Type::SMALL);
    }
    svg.finish(set.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_leave_their_marks_out() {
        let row = |value| Row {
            name: "L0.H1".into(),
            value,
            colour: "var(--up)",
            filled: true,
            beside: None,
            tip: "L0.H1".into(),
        };
        let set =
            Forest { axis: "Δ", beside: None, span: (0.0, 0.0), within: ALL, width: 520.0, label: "rows" };
        let svg = forest(&set, &[row([1.0, 0.5, 1.5]), row([f64::NAN; 3])]);
        assert_eq!((svg.matches("<circle").count(), svg.matches("data-tip").count()), (1, 2));
        assert!(!svg.contains("NaN"), "{svg}");
        // A line between rows, and room for it.
        let rows = [row([1.0, 0.5, 1.5]), row([0.5, 0.0, 1.0])];
        let apart = parted(&set, &rows, Some((1, "3 between")));
        assert!(apart.contains("viewBox=\"0 0 520 115\"") && apart.contains(">3 between<"), "{apart}");
        assert_eq!(forest(&set, &rows).matches("viewBox=\"0 0 520 92\"").count(), 1);
        assert!(apart.contains("cy=\"17.5\"") && apart.contains("cy=\"63.5\""), "{apart}");
    }
}
