//! What is compared over tasks: on how many a head matters, and how reliable scores are.

use super::draw::{Svg, Type, cut, interval, number, signed, tip};
use super::forest::{Forest, Row, forest};
use super::{Figure, Part, Table, ink, rounded, slug};
use crate::analyse::Analysis;
use crate::poly::PolyRow;
use crate::reliability::ReliabilityRow;
use serde_json::json;

/// Rows of a figure.
const ROWS: usize = 24;

/// Adds the figures.
pub fn figures(analysis: &Analysis, out: &mut Vec<Figure>) {
    let mut methods: Vec<(&str, ablate_common::units::UnitKind)> = Vec::new();
    for r in &analysis.polysemanticity {
        if !methods.contains(&(r.method, r.unit)) {
            methods.push((r.method, r.unit));
        }
    }
    for (method, unit) in methods {
        let rows: Vec<&PolyRow> =
            analysis.polysemanticity.iter().filter(|r| r.method == method && r.unit == unit).collect();
        out.extend(poly(method, unit.plural(), &rows));
    }
    out.extend(reliability(analysis));
}

fn z(r: &PolyRow, k: usize) -> f64 {
    r.deltas[k] / r.ses[k]
}

fn strength(r: &PolyRow) -> f64 {
    (0..r.deltas.len()).map(|k| z(r, k).abs()).filter(|v| v.is_finite()).fold(0.0, f64::max)
}

fn poly(method: &str, many: &str, rows: &[&PolyRow]) -> Option<Figure> {
    let mut listed: Vec<&PolyRow> = rows.iter().filter(|r| r.resolved > 0).copied().collect();
    listed.sort_by(|a, b| {
        b.resolved.cmp(&a.resolved).then(strength(b).total_cmp(&strength(a))).then(a.ix.cmp(&b.ix))
    });
    let (several, single) =
        (listed.iter().filter(|r| r.resolved > 1).count(), listed.iter().filter(|r| r.resolved == 1).count());
    listed.truncate(ROWS);
    let first = listed.first()?;
    let tasks: Vec<String> = first.tasks.clone();
    let most = listed.iter().map(|r| strength(r)).fold(0.0, f64::max);
    let (left, wide, high, top) = (96.0, (560.0 / tasks.len() as f64).clamp(84.0, 150.0), 25.0, 34.0);
    let right = left + wide * tasks.len() as f64;
    let mut svg = Svg::new((right + 190.0).max(520.0), top + high * listed.len() as f64 + 62.0);
    for (k, task) in tasks.iter().enumerate() {
        let x = left + wide * (k as f64 + 0.5);
        svg.text(x, top - 11.0, &cut(task, (wide / 7.0) as usize), Type::NAME.bold().middle());
    }
    svg.text(right + 18.0, top - 11.0, "participation", Type::NAME.bold());
    for (k, r) in listed.iter().enumerate() {
        let y = top + high * k as f64;
        svg.text(left - 10.0, y + 17.0, &r.place.name, Type::NAME.end());
        for (t, task) in r.tasks.iter().enumerate() {
            let Some(column) = tasks.iter().position(|o| o == task) else { continue };
            let step = ink::step(z(r, t), most).unwrap_or(0);
            let text = format!(
                "{}, {task}\nΔ {}, standard error {}\n{} standard errors from 0",
                r.place.name,
                signed(r.deltas[t]),
                number(r.ses[t]),
                signed(z(r, t))
            );
            svg.open(&format!("class=\"m\" {}", tip(&text)));
            let x = left + wide * column as f64;
            svg.rect([x + 1.0, y + 1.0, wide - 2.0, high - 2.0], &ink::diverging(step), "rx=\"2\"");
            let set = Type::SMALL.middle().fill(ink::text_on(step));
            svg.text(x + wide / 2.0, y + 16.5, &signed(r.deltas[t]), set);
            svg.close();
        }
        if let Some(v) = r.participation.filter(|v| v.is_finite()) {
            let share = v / tasks.len().max(1) as f64;
            svg.rect([right + 18.0, y + 9.0, 110.0, 7.0], "var(--grid)", "rx=\"3.5\"");
            svg.rect(
                [right + 18.0, y + 9.0, 110.0 * share.clamp(0.02, 1.0), 7.0],
                "var(--accent)",
                "rx=\"3.5\"",
            );
            svg.text(right + 136.0, y + 17.0, &number(v), Type::SMALL.fill("var(--ink)"));
        }
    }
    let y = top + high * listed.len() as f64 + 18.0;
    super::heat::legend(&mut svg, [left, y], most, &["removal helps", "removal hurts"], "Δ/SE");
    let finding =
        format!("{several} {many} have a resolved effect on more than one task, {single} on one only.");
    let mut table = Table::new(&["name", "participation", "resolved_tasks", "task", "delta", "se"]);
    for r in rows {
        for (t, task) in r.tasks.iter().enumerate() {
            table.rows.push(vec![
                json!(r.place.name),
                rounded(r.participation.unwrap_or(f64::NAN), 5),
                json!(r.resolved),
                json!(task),
                rounded(r.deltas[t], 6),
                rounded(r.ses[t], 6),
            ]);
        }
    }
    Some(Figure {
        name: slug(&["polysemanticity", method, many]),
        part: Part::Across,
        group: None,
        title: "One task or many".into(),
        svg: svg.finish(&format!("Effect of {many} on every task, {method} ablation. {finding}")),
        finding,
        how: format!(
            "Δ by task ({method} ablation), coloured by its size in standard errors; participation is 1 where one task has all of it, {} where all have the same. Those resolved on most tasks come first.",
            tasks.len()
        ),
        data: Some(table),
        order: None,
        instead: false,
    })
}

fn reliability(analysis: &Analysis) -> Option<Figure> {
    let all: Vec<&ReliabilityRow> = analysis.groups.iter().flat_map(|g| &g.reliability).collect();
    let known: Vec<&&ReliabilityRow> = all.iter().filter(|r| r.corrected.is_finite()).collect();
    let rows: Vec<Row> = known
        .iter()
        .take(40)
        .map(|r| Row {
            name: r.score.clone(),
            value: [r.corrected, r.ci_low, r.ci_high],
            colour: "var(--c1)",
            filled: r.ci_low > 0.0,
            beside: Some(r.split_half),
            tip: format!(
                "{}\nreliability {} {} 95 %\nbetween the halves {}\n{} units",
                r.score,
                signed(r.corrected),
                interval(r.ci_low, r.ci_high),
                signed(r.split_half),
                r.n
            ),
        })
        .collect();
    let by = |a: &&&&ReliabilityRow, b: &&&&ReliabilityRow| a.corrected.total_cmp(&b.corrected);
    let (best, worst) = (known.iter().max_by(by)?, known.iter().min_by(by)?);
    let finding = if known.len() > 1 {
        format!(
            "Measured again on other documents, {} would rank heads the same best (reliability {}), {} least ({}).",
            best.score,
            number(best.corrected),
            worst.score,
            number(worst.corrected)
        )
    } else {
        format!("{} has a reliability of {}.", best.score, number(best.corrected))
    };
    let set = Forest {
        axis: "reliability (Spearman–Brown)",
        beside: Some("Spearman's correlation between the two halves of the documents"),
        span: (0.0, 1.0),
        // A correction for length has no bound below, and few units leave wide intervals.
        within: (-1.0, 1.0),
        width: 980.0,
        label: &finding,
    };
    let mut table = Table::new(&["score", "split_half", "corrected", "ci_low", "ci_high", "n"]);
    for r in &all {
        let mut row = vec![json!(r.score)];
        row.extend([r.split_half, r.corrected, r.ci_low, r.ci_high].map(|v| rounded(v, 5)));
        row.push(json!(r.n));
        table.rows.push(row);
    }
    Some(Figure {
        name: "reliability".into(),
        part: Part::Across,
        group: None,
        title: "Would other documents say the same".into(),
        svg: forest(&set, &rows),
        finding,
        how: "Split-half reliability: the score on one half of the documents against the other, corrected to the full length; lines are 95 % intervals by bootstrap over units.".into(),
        data: Some(table),
        order: None,
        instead: false,
    })
}
