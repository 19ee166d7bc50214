//! What the script reads: numbers behind figures for their CSV files, and every pair packed.

use crate::analyse::{Analysis, Group, Relation};
use crate::figure::draw::escape;
use crate::figure::ink::{self, Theme};
use crate::figure::{Figure, rounded};
use crate::results::Results;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most pairs that a page carries; groups beyond it have their pairs in the tables only.
const MOST_PAIRS: usize = 300_000;

/// Script elements that hold JSON.
pub fn blocks(results: &Results, analysis: &Analysis, figures: &[Figure]) -> String {
    let mut out = String::new();
    let colours: BTreeMap<String, String> = ink::all(Theme::Light).into_iter().collect();
    out.push_str(&block("page", &json!({"name": results.plan.spec.name, "colours": colours})));
    for f in figures {
        if let Some(table) = &f.data {
            let value = json!({"columns": table.columns, "rows": table.rows});
            out.push_str(&block(&format!("data-{}", f.name), &value));
        }
    }
    let mut left = MOST_PAIRS;
    for (at, g) in analysis.groups.iter().enumerate() {
        if !g.pairs.is_empty() && g.pairs.len() <= left {
            left -= g.pairs.len();
            out.push_str(&block(&format!("pairs-{at}"), &pairs(g)));
        }
    }
    out
}

fn block(id: &str, value: &Value) -> String {
    // "<" can't end the script element or open a comment where it is written as an escape.
    let text = value.to_string().replace('<', "\\u003c");
    format!("<script type=\"application/json\" id=\"{}\">{text}</script>\n", escape(id))
}

/// Every pair of a group: its units, and for each two of them (i < j, row by row) three half floats, the interaction by
/// `most`, half the width of its interval by `widest`, and q, negative where the pair is unresolved. NaN where it is unknown.
fn pairs(g: &Group) -> Value {
    let mut units: Vec<usize> = g.pairs.iter().flat_map(|p| [p.a.at(), p.b.at()]).collect();
    units.sort_unstable();
    units.dedup();
    let n = units.len();
    let most = |of: &dyn Fn(&crate::analyse::PairRow) -> f64| {
        g.pairs
            .iter()
            .map(of)
            .filter(|v| v.is_finite())
            .fold(0.0f64, |m, v| m.max(v.abs()))
            .max(f64::MIN_POSITIVE)
    };
    let half = |p: &crate::analyse::PairRow| (p.interaction.high - p.interaction.low) / 2.0;
    let (largest, widest) = (most(&|p| p.interaction.value), most(&half));
    let mut packed = vec![f16::NAN; n * n.saturating_sub(1) / 2 * 3];
    for p in &g.pairs {
        let (Ok(i), Ok(j)) = (units.binary_search(&p.a.at()), units.binary_search(&p.b.at())) else {
            continue;
        };
        let (i, j) = (i.min(j), i.max(j));
        if i == j {
            continue;
        }
        let at = (i * (2 * n - i - 1) / 2 + j - i - 1) * 3;
        let sign = if p.relation == Relation::Unresolved { -1.0 } else { 1.0 };
        let three = [p.interaction.value / largest, half(p) / widest, p.q.max(1e-7) * sign];
        for (slot, v) in packed[at..at + 3].iter_mut().zip(three) {
            *slot = f16::from_f64(v);
        }
    }
    let bytes: Vec<u8> = packed.iter().flat_map(|h| h.to_le_bytes()).collect();
    let delta = |u: &usize| {
        let row = g.heads.iter().find(|h| h.ix.at() == *u);
        rounded(row.map_or(f64::NAN, |h| h.delta.value), 5)
    };
    json!({
        "units": units,
        "names": units.iter().map(|u| g.places.get(*u).map_or("", |p| p.name.as_str())).collect::<Vec<_>>(),
        "deltas": units.iter().map(delta).collect::<Vec<_>>(),
        "most": largest,
        "widest": widest,
        "packed": STANDARD.encode(bytes),
    })
}
