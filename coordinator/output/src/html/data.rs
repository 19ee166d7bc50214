//! What the script reads: numbers behind figures for their CSV files, and every pair packed.

use crate::analyse::{Analysis, Group, PairRow, Relation};
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
/// Numbers that a page carries of each pair.
const NUMBERS: usize = 4;

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

/// Every pair of a group: its units, and for each two of them (i < j, row by row) four half floats: the interaction and the ends of
/// its interval, each by `most`, and q, negative where the pair is unresolved. NaN where it is unknown. Both ends, as the
/// interval of a metric that is no mean isn't symmetric; all three by one number, so that rounding leaves them in their order.
fn pairs(g: &Group) -> Value {
    let mut units: Vec<usize> = g.pairs.iter().flat_map(|p| [p.a.at(), p.b.at()]).collect();
    units.sort_unstable();
    units.dedup();
    let n = units.len();
    let three = |p: &PairRow| [p.interaction.value, p.interaction.low, p.interaction.high];
    let sizes = g.pairs.iter().flat_map(three).filter(|v| v.is_finite()).map(f64::abs);
    let most = sizes.fold(f64::MIN_POSITIVE, f64::max);
    let mut packed = vec![f16::NAN; n * n.saturating_sub(1) / 2 * NUMBERS];
    for p in &g.pairs {
        let (Ok(i), Ok(j)) = (units.binary_search(&p.a.at()), units.binary_search(&p.b.at())) else {
            continue;
        };
        let (i, j) = (i.min(j), i.max(j));
        if i == j {
            continue;
        }
        let at = (i * (2 * n - i - 1) / 2 + j - i - 1) * NUMBERS;
        let sign = if p.relation == Relation::Unresolved { -1.0 } else { 1.0 };
        let [value, low, high] = three(p).map(|v| v / most);
        // Half floats end at 6e-8, where a q would be taken for 0. One that isn't known stays so.
        let q = p.q.clamp(1e-7, 1.0) * sign;
        for (slot, v) in packed[at..at + NUMBERS].iter_mut().zip([value, low, high, q]) {
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
        "most": most,
        "packed": STANDARD.encode(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::analyse;
    use crate::tests::experiment;

    #[test]
    fn a_page_carries_both_ends_of_the_interval_of_each_pair() {
        let mut analysis = analyse(&experiment(2, 3, 14, true));
        // Correlations: their intervals come from resamples, and aren't symmetric.
        let g = &mut analysis.groups[1];
        (g.pairs[4].q, g.pairs[4].relation) = (f64::NAN, Relation::Unresolved);
        let told = pairs(g);
        let most = told["most"].as_f64().unwrap();
        let bytes = STANDARD.decode(told["packed"].as_str().unwrap()).unwrap();
        let read: Vec<f64> =
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect();
        assert_eq!((g.pairs.len(), read.len()), (15, 15 * NUMBERS));
        let mut lopsided = 0;
        for p in &g.pairs {
            let (i, j) = (p.a.at(), p.b.at());
            let at = (i * (11 - i) / 2 + j - i - 1) * NUMBERS;
            let wanted = [p.interaction.value, p.interaction.low, p.interaction.high];
            for (v, wanted) in read[at..at + 3].iter().map(|v| v * most).zip(wanted) {
                assert!((v - wanted).abs() <= 5e-4 * wanted.abs() + 1e-7 * most, "{v} {wanted} {p:?}");
            }
            let q = read[at + 3];
            assert!((q.abs() - p.q).abs() <= 1e-3 || (q.is_nan() && p.q.is_nan()), "{q} {p:?}");
            assert_eq!(q > 0.0, p.relation != Relation::Unresolved);
            let [value, low, high] = wanted;
            lopsided += usize::from(((high - value) - (value - low)).abs() > 0.01 * (high - low));
        }
        assert!(lopsided > 0, "no interval shows the difference");
    }
}
