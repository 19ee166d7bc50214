//! Whether scores agree: rank correlations with their intervals.

use super::draw::{interval, number, signed};
use super::forest::{Forest, Row, forest};
use super::{Figure, Part, Table, rounded};
use crate::agreement::AgreementRow;
use crate::analyse::Analysis;
use serde_json::json;

/// Most rows of a figure.
const MOST: usize = 40;

/// Adds the figure of agreement, where scores are compared.
pub fn figures(analysis: &Analysis, out: &mut Vec<Figure>) {
    let known: Vec<&AgreementRow> = analysis.agreement.iter().filter(|a| a.scope == "all").collect();
    if known.is_empty() {
        return;
    }
    let within = |a: &AgreementRow| {
        let same = |b: &&AgreementRow| {
            (&b.score_a, &b.score_b, &b.task, &b.method, b.unit)
                == (&a.score_a, &a.score_b, &a.task, &a.method, a.unit)
        };
        analysis.agreement.iter().filter(|b| b.scope == "within_layer").find(same)
    };
    let mut listed = known.clone();
    listed.sort_by(|a, b| b.spearman.total_cmp(&a.spearman));
    listed.truncate(MOST);
    let rows: Vec<Row> = listed
        .iter()
        .map(|a| {
            let inner = within(a);
            let mut tip = format!(
                "{}\n{}\nSpearman {} {} 95 %\nKendall τ-b {} {}\nfirst {}: Jaccard {}",
                a.score_a,
                a.score_b,
                signed(a.spearman),
                interval(a.ci.0, a.ci.1),
                signed(a.kendall),
                interval(a.kendall_low, a.kendall_high),
                a.top_k,
                number(a.jaccard)
            );
            if let Some(i) = inner {
                tip.push_str(&format!("\nwithin layers {} {}", signed(i.spearman), interval(i.ci.0, i.ci.1)));
            }
            Row {
                name: both(&a.score_a, &a.score_b),
                value: [a.spearman, a.ci.0, a.ci.1],
                colour: "var(--c1)",
                filled: a.ci.0 > 0.0 || a.ci.1 < 0.0,
                beside: inner.map(|i| i.spearman),
                tip,
            }
        })
        .collect();
    let finding = match (listed.first(), listed.last()) {
        (Some(a), Some(b)) if listed.len() > 1 => format!(
            "{} agree best (Spearman {}), {} least ({}).",
            both(&a.score_a, &a.score_b),
            number(a.spearman),
            both(&b.score_a, &b.score_b),
            number(b.spearman)
        ),
        (Some(a), _) => format!("{}: Spearman {}.", both(&a.score_a, &a.score_b), number(a.spearman)),
        _ => return,
    };
    let beside = rows.iter().any(|r| r.beside.is_some_and(f64::is_finite));
    let set = Forest {
        axis: "Spearman's rank correlation over all units",
        beside: beside.then_some("mean correlation within layers: free of the effect of depth"),
        span: (0.0, 1.0),
        within: super::forest::ALL,
        width: 980.0,
        label: &finding,
    };
    let svg = forest(&set, &rows);
    let mut how = "Lines are 95 % intervals by bootstrap over units; filled marks exclude 0.".to_owned();
    if known.len() > listed.len() {
        how.push_str(&format!(" The {MOST} highest of {}; all are in the table agreement.", known.len()));
    }
    let mut table = Table::new(&[
        "task",
        "method",
        "unit",
        "score_a",
        "score_b",
        "scope",
        "spearman",
        "ci_low",
        "ci_high",
        "kendall",
        "kendall_low",
        "kendall_high",
        "top_k",
        "jaccard",
        "jaccard_low",
        "jaccard_high",
    ]);
    for a in &analysis.agreement {
        let mut row = vec![
            json!(a.task),
            json!(a.method),
            json!(a.unit.name()),
            json!(a.score_a),
            json!(a.score_b),
            json!(a.scope),
        ];
        row.extend(
            [a.spearman, a.ci.0, a.ci.1, a.kendall, a.kendall_low, a.kendall_high].map(|v| rounded(v, 5)),
        );
        row.push(json!(a.top_k));
        row.extend([a.jaccard, a.jaccard_low, a.jaccard_high].map(|v| rounded(v, 5)));
        table.rows.push(row);
    }
    out.push(Figure {
        name: "agreement".into(),
        part: Part::Across,
        group: None,
        title: "Do the scores agree?".into(),
        finding,
        how,
        svg,
        data: Some(table),
        order: None,
        instead: false,
    });
}

/// Two scores' names, what they share said once.
fn both(a: &str, b: &str) -> String {
    let (x, y): (Vec<&str>, Vec<&str>) = (a.split(' ').collect(), b.split(' ').collect());
    let mut from = x.len().min(y.len());
    while from > 0 && x[x.len() - from..] != y[y.len() - from..] {
        from -= 1;
    }
    if from == 0 || from == x.len() || from == y.len() {
        return format!("{a} – {b}");
    }
    format!(
        "{} – {}, {}",
        x[..x.len() - from].join(" "),
        y[..y.len() - from].join(" "),
        x[x.len() - from..].join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::both;

    #[test]
    fn what_names_share_is_said_once() {
        assert_eq!(both("delta ioi mean", "gradient ioi mean"), "delta – gradient, ioi mean");
        assert_eq!(both("delta ioi mean", "delta wiki mean"), "delta ioi – delta wiki, mean");
        assert_eq!(both("delta ioi mean", "delta ioi zero"), "delta ioi mean – delta ioi zero");
    }
}
