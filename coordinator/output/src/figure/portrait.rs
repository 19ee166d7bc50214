//! What heads attend to: maps of the known kinds of heads, and a portrait of each important one.

use super::draw::{Svg, Type, cut, escape, interval, number, percent, signed, tip, width};
use super::heat::Grid;
use super::{Figure, Part, Table, ink, rounded, slug};
use crate::analyse::{Analysis, Group, HeadRow, RESOLVED};
use crate::attention::{AttentionRow, Pattern, patterns};
use crate::facts;
use crate::results::Results;
use ablate_common::units::UnitKind;
use serde_json::{Value, json};

/// Most portraits.
const MOST: usize = 8;
/// Most tokens of a pattern that are drawn: the last ones.
const TOKENS: usize = 36;

/// A score with its name.
type Kind = (&'static str, fn(&AttentionRow) -> Option<f64>);

/// The scores that tell kinds of heads apart.
static KINDS: [Kind; 4] = [
    ("previous token", |r| r.previous_token),
    ("duplicate token", |r| r.duplicate_token),
    ("induction", |r| r.induction),
    ("first token", |r| r.first_token),
];

/// Adds the maps of each task and the portraits.
pub fn figures(results: &Results, analysis: &Analysis, out: &mut Vec<Figure>) {
    for (at, g) in analysis.groups.iter().enumerate().filter(|g| !g.1.attention.is_empty()) {
        out.extend(maps(g, at));
    }
    let seen: Vec<&Group> = analysis.groups.iter().filter(|g| !g.attention.is_empty()).collect();
    let mut names: Vec<String> = Vec::new();
    // The most important of each task in turn.
    for rank in 0..MOST {
        for g in seen.iter().filter(|g| g.unit == UnitKind::Head) {
            let order = facts::top_heads(g, MOST);
            let name = order.get(rank).map(|h| g.name_of(h.ix).to_owned());
            if let Some(name) = name.filter(|n| !names.contains(n) && names.len() < MOST) {
                names.push(name);
            }
        }
    }
    let kept: Vec<(u32, Vec<Pattern>)> = seen.iter().map(|g| (g.task, patterns(results, g.task))).collect();
    for name in names {
        out.extend(portrait(&name, &seen, &kept));
    }
}

fn maps(g: &Group, at: usize) -> Option<Figure> {
    let grid = Grid::of_heads(g.attention.iter().map(|r| (r.stream, r.layer)));
    let kinds: Vec<&Kind> = KINDS.iter().filter(|k| g.attention.iter().any(|r| k.1(r).is_some())).collect();
    if kinds.is_empty() {
        return None;
    }
    let layers = grid.panels.iter().map(|p| p.1).max().unwrap_or(1);
    let columns = if layers > 14 { 2.0 } else { kinds.len() as f64 };
    let side = (((940.0 - 44.0 * columns) / columns) / f64::from(layers)).clamp(5.0, 20.0).floor();
    let (left, gap) = (34.0, 46.0);
    let panel = side * f64::from(layers) + gap;
    let rows: f64 = grid.panels.iter().map(|p| side * f64::from(p.2) + 26.0).sum();
    let deep = rows + 34.0;
    let lines = (kinds.len() as f64 / columns).ceil();
    let mut svg = Svg::new((left + panel * columns - 20.0).max(420.0), deep * lines + 30.0);
    let mut best: Vec<String> = Vec::new();
    for (k, (kind, of)) in kinds.iter().map(|k| (k.0, k.1)).enumerate() {
        let (x, mut y) = (left + panel * (k as f64 % columns), deep * (k as f64 / columns).floor() + 16.0);
        svg.text(x, y, kind, Type::NAME.bold());
        y += 9.0;
        for (p, (stream, layers, rows)) in grid.panels.iter().enumerate() {
            if grid.panels.len() > 1 {
                svg.text(x, y + 9.0, stream.name(), Type::SMALL);
                y += 14.0;
            }
            svg.text(x - 6.0, y + side * 0.5 + 4.0, "H0", Type::SMALL.size(9.5).end());
            for (r, cell) in g.attention.iter().zip(&grid.cells) {
                let Some((_, layer, row)) = cell.filter(|c| c.0 == p) else { continue };
                let place = [x + side * f64::from(layer), y + side * f64::from(row), side - 0.8, side - 0.8];
                let Some(v) = of(r) else { continue };
                let text = format!("{}\n{kind} {}", r.name, percent(v));
                svg.rect(place, &ink::sequential(v), &format!("class=\"m\" {}", tip(&text)));
            }
            y += side * f64::from(*rows);
            for layer in (0..*layers).step_by(if *layers > 12 { 5 } else { 1 }) {
                let at = x + side * (f64::from(layer) + 0.5);
                svg.text(at, y + 12.0, &layer.to_string(), Type::SMALL.size(9.5).middle());
            }
            y += 26.0;
        }
        let top = g.attention.iter().filter_map(|r| Some((r, of(r)?))).max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((r, v)) = top {
            best.push(format!("{kind}: {} ({})", r.name, percent(v)));
        }
    }
    let y = deep * lines + 12.0;
    svg.text(left, y + 8.0, "share of attention  0 %", Type::SMALL);
    for k in 0..=ink::STEPS {
        svg.rect([left + 128.0 + 9.0 * k as f64, y, 9.3, 9.0], &format!("var(--s{k})"), "");
    }
    svg.text(left + 134.0 + 9.0 * (ink::STEPS + 1) as f64, y + 8.0, "100 %", Type::SMALL);
    let finding = format!("The strongest of each kind: {}.", best.join("; "));
    let mut table = Table::new(&[
        "name",
        "confidence",
        "entropy",
        "first_token",
        "previous_token",
        "duplicate_token",
        "induction",
        "rollout",
    ]);
    for r in &g.attention {
        let known = |v: Option<f64>| rounded(v.unwrap_or(f64::NAN), 5);
        table.rows.push(vec![
            json!(r.name),
            rounded(r.confidence, 5),
            rounded(r.entropy, 5),
            known(r.first_token),
            known(r.previous_token),
            known(r.duplicate_token),
            known(r.induction),
            rounded(r.rollout, 5),
        ]);
    }
    Some(Figure {
        name: slug(&["attention", &g.name]),
        part: Part::Heads,
        group: Some(at),
        title: "What heads attend to".into(),
        svg: svg.finish(&format!("{}: attention scores of every head. {finding}", g.name)),
        finding,
        how: format!(
            "Mean share of attention, with nothing removed, that goes to the token before, to earlier copies of the same token, to what followed those, and to the first position; over {} sequences.",
            g.attention.first().map_or(0, |r| r.n)
        ),
        data: Some(table),
        order: None,
        instead: false,
    })
}

/// One head's portrait: its scores, its deltas over tasks, and its pattern on the task where it matters most.
fn portrait(name: &str, seen: &[&Group], kept: &[(u32, Vec<Pattern>)]) -> Option<Figure> {
    let of = |g: &Group| g.heads.iter().find(|h| g.name_of(h.ix) == name).copied();
    let strength = |g: &Group| of(g).map_or(0.0, |h| h.delta.value / h.delta.se.max(1e-300));
    let own = seen.iter().max_by(|a, b| strength(a).total_cmp(&strength(b)))?;
    let row = own.attention.iter().find(|r| r.name == name)?;
    let pattern =
        kept.iter().find(|k| k.0 == own.task).and_then(|k| k.1.iter().find(|p| p.head.to_string() == name));
    let mut svg = Svg::new(520.0, 0.0);
    let mut y = 20.0;
    svg.text(0.0, y, name, Type::NAME.bold().size(17.0));
    svg.text(
        width(name, 17.0) + 16.0,
        y,
        &format!("confidence {}   entropy {} nats", number(row.confidence), number(row.entropy)),
        Type::SMALL,
    );
    y += 14.0;
    let top = y;
    bars(&mut svg, row, &own.name, &mut y);
    let mut right = top;
    deltas(&mut svg, name, seen, &of, &mut right);
    y = y.max(right) + 10.0;
    if let Some(p) = pattern {
        weights(&mut svg, p, &mut y);
    }
    svg.height = y + 6.0;
    let kind = KINDS
        .iter()
        .filter_map(|k| Some((k.0, k.1(row)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|k| k.1 >= 0.3);
    let finding = match kind {
        Some((kind, v)) => {
            format!("On {}, {} of its attention goes to the {}.", own.name, percent(v), target(kind))
        }
        None => format!(
            "On {}, it follows none of the known patterns for 30 % of its attention or more.",
            own.name
        ),
    };
    let how = match pattern {
        Some(p) => format!(
            "Its scores on {}, its Δ on every task with 95 % intervals, and its pattern on example {} (rows attend to columns).",
            own.name, p.example
        ),
        None => format!("Its scores on {}, and its Δ on every task with 95 % intervals.", own.name),
    };
    Some(Figure {
        name: slug(&["portrait", name]),
        part: Part::Portraits,
        group: None,
        title: name.to_owned(),
        svg: svg.finish(&format!("Portrait of {name}. {finding}")),
        finding,
        how,
        data: Some(numbers(own, row, seen, &of, pattern)),
        order: None,
        instead: false,
    })
}

/// The numbers of a portrait, a row each: its scores and the drawn weights of its pattern, on the task where it matters most, and its Δ on
/// every task.
fn numbers(
    own: &Group,
    row: &AttentionRow,
    seen: &[&Group],
    of: &dyn Fn(&Group) -> Option<HeadRow>,
    pattern: Option<&Pattern>,
) -> Table {
    let mut table = Table::new(&[
        "what",
        "task",
        "query",
        "query_token",
        "key",
        "key_token",
        "value",
        "ci_low",
        "ci_high",
        "q_value",
    ]);
    let mut put = |what: &str, task: &str, cell: [Value; 4], numbers: [f64; 4]| {
        let mut out = vec![json!(what), json!(task)];
        out.extend(cell);
        out.extend(numbers.map(|v| rounded(v, 6)));
        table.rows.push(out);
    };
    let nowhere = || [(); 4].map(|()| Value::Null);
    let alone = |v: f64| [v, f64::NAN, f64::NAN, f64::NAN];
    put("confidence", &own.name, nowhere(), alone(row.confidence));
    put("entropy", &own.name, nowhere(), alone(row.entropy));
    for (kind, score) in &KINDS {
        if let Some(v) = score(row) {
            put(kind, &own.name, nowhere(), alone(v));
        }
    }
    for g in seen {
        if let Some(h) = of(g) {
            put("delta", &g.name, nowhere(), [h.delta.value, h.delta.low, h.delta.high, h.q]);
        }
    }
    if let Some(p) = pattern {
        for (q, k, v) in cells(p) {
            let cell = [json!(q), json!(spelled(&p.queries[q])), json!(k), json!(spelled(&p.keys[k]))];
            put("weight", &own.name, cell, alone(v));
        }
    }
    table
}

fn target(kind: &str) -> &'static str {
    match kind {
        "previous token" => "token before",
        "duplicate token" => "earlier copies of the same token",
        "induction" => "tokens that followed earlier copies (induction)",
        _ => "first position",
    }
}

/// Scores as bars.
fn bars(svg: &mut Svg, row: &AttentionRow, task: &str, y: &mut f64) {
    svg.text(0.0, *y + 14.0, &cut(&format!("attention on {task}"), 30), Type::SMALL);
    *y += 22.0;
    for (kind, of) in &KINDS {
        let value = of(row);
        let text = format!("{kind}\n{}", value.map_or_else(|| "no token repeats".into(), percent));
        svg.open(&format!("class=\"m\" {}", tip(&text)));
        svg.rect([0.0, *y, 240.0, 20.0], "transparent", "class=\"hit\"");
        svg.text(96.0, *y + 14.0, kind, Type::NAME.end());
        svg.rect([104.0, *y + 7.0, 90.0, 7.0], "var(--grid)", "rx=\"3.5\"");
        if let Some(v) = value.filter(|v| v.is_finite()) {
            svg.rect(
                [104.0, *y + 7.0, (90.0 * v.clamp(0.0, 1.0)).max(1.5), 7.0],
                "var(--accent)",
                "rx=\"3.5\"",
            );
        }
        let said = value.map_or_else(|| "–".into(), |v| format!("{:.0} %", 100.0 * v));
        svg.text(200.0, *y + 14.0, &said, Type::SMALL.fill("var(--ink)"));
        svg.close();
        *y += 20.0;
    }
}

/// Δ on every task.
fn deltas(svg: &mut Svg, name: &str, seen: &[&Group], of: &dyn Fn(&Group) -> Option<HeadRow>, y: &mut f64) {
    let rows: Vec<(&&Group, HeadRow)> = seen.iter().filter_map(|g| Some((g, of(g)?))).take(6).collect();
    svg.text(276.0, *y + 14.0, "Δ in standard errors, by task", Type::SMALL);
    *y += 22.0;
    let z = |h: &HeadRow, v: f64| v / h.delta.se;
    let most = rows
        .iter()
        .map(|(_, h)| z(h, h.delta.value).abs() + 2.0)
        .filter(|v| v.is_finite())
        .fold(3.0, f64::max);
    let x = |v: f64| 420.0 + 62.0 * (v / most).clamp(-1.0, 1.0);
    svg.line([420.0, *y, 420.0, *y + 20.0 * rows.len() as f64], "var(--line)", 1.0, "");
    for (g, h) in rows {
        let colour = if h.delta.value < 0.0 { "var(--down)" } else { "var(--up)" };
        let text = format!(
            "{name}, {}\nΔ {} {} 95 %",
            g.name,
            signed(h.delta.value),
            interval(h.delta.low, h.delta.high)
        );
        svg.open(&format!("class=\"m\" {}", tip(&text)));
        svg.rect([270.0, *y, 250.0, 20.0], "transparent", "class=\"hit\"");
        svg.text(348.0, *y + 14.0, &cut(&g.name, 13), Type::NAME.end());
        let (low, high) = (x(z(&h, h.delta.low)), x(z(&h, h.delta.high)));
        if low.is_finite() && high.is_finite() {
            svg.line([low, *y + 10.0, high, *y + 10.0], colour, 1.8, "stroke-linecap=\"round\"");
            let fill = if h.q <= RESOLVED { colour } else { "var(--paper)" };
            let more = format!("stroke=\"{colour}\" stroke-width=\"1.6\"");
            svg.circle([x(z(&h, h.delta.value)), *y + 10.0, 3.8], fill, &more);
        }
        svg.text(520.0, *y + 14.0, &signed(h.delta.value), Type::SMALL.fill("var(--ink)").end());
        svg.close();
        *y += 20.0;
    }
}

/// The first query and the first key that are drawn of a pattern: of a long one its end is.
fn corner(p: &Pattern) -> (usize, usize) {
    (p.queries.len().saturating_sub(TOKENS), p.keys.len().saturating_sub(TOKENS))
}

/// The weights that are drawn: query, key, weight.
fn cells(p: &Pattern) -> Vec<(usize, usize, f64)> {
    let ((from, first), keys) = (corner(p), p.keys.len());
    let places = (from..p.queries.len()).flat_map(|q| (first..keys).map(move |k| (q, k)));
    let weight = |(q, k): (usize, usize)| {
        let v = p.attention.get(q * keys + k).copied().unwrap_or(f64::NAN);
        (v >= 0.02).then_some((q, k, v))
    };
    places.filter_map(weight).collect()
}

/// The pattern with its tokens; of a long one the end.
fn weights(svg: &mut Svg, p: &Pattern, y: &mut f64) {
    let (queries, keys) = (p.queries.len(), p.keys.len());
    let (from, first) = corner(p);
    let (rows, columns) = (queries - from, keys - first);
    let left = 92.0;
    let side = (420.0 / columns.max(rows) as f64).min(17.0);
    let size = (side * 0.72).clamp(6.5, 10.5);
    let above = 66.0;
    let told = |t: &str| escape(&shown(t));
    *y += above;
    for k in 0..columns {
        let x = left + side * (k as f64 + 0.5) + size * 0.35;
        svg.raw(&format!(
            "<text transform=\"translate({x:.2} {:.2}) rotate(-90)\" font-size=\"{size:.2}\" fill=\"var(--soft)\">{}</text>",
            *y - 5.0,
            told(&cut(&p.keys[first + k], 11))
        ));
    }
    svg.rect([left, *y, side * columns as f64, side * rows as f64], "var(--s0)", "");
    for q in 0..rows {
        let at = *y + side * q as f64;
        let set = Type::SMALL.size(size).end();
        svg.text(left - 6.0, at + side * 0.5 + size * 0.35, &shown(&cut(&p.queries[from + q], 15)), set);
    }
    for (q, k, v) in cells(p) {
        let text = format!("{} → {}\n{}", shown(&p.queries[q]), shown(&p.keys[k]), percent(v));
        let (x, at) = (left + side * (k - first) as f64, *y + side * (q - from) as f64);
        svg.rect(
            [x, at, side - 0.6, side - 0.6],
            &ink::sequential(v),
            &format!("class=\"m\" {}", tip(&text)),
        );
    }
    *y += side * rows as f64;
    if rows < queries || columns < keys {
        svg.text(left, *y + 15.0, &format!("the last {rows} of {queries} tokens"), Type::SMALL);
        *y += 18.0;
    }
}

/// A token as it is shown: its blanks made visible.
fn shown(token: &str) -> String {
    let t = token.replace('\n', "↵");
    match t.strip_prefix(' ') {
        Some(rest) if !rest.trim().is_empty() => rest.to_owned(),
        _ => t.replace(' ', "␣"),
    }
}

/// A token in a table: as it is shown, and without characters that would break its line.
fn spelled(token: &str) -> String {
    shown(token).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
