//! Whether scores agree: rank correlations with their intervals.

use super::draw::{interval, number, signed};
use super::forest::{Forest, Row, parted};
use super::{Figure, Part, Table, rounded};
use crate::agreement::AgreementRow;
use crate::analyse::Analysis;
use serde_json::json;

/// Most rows of a figure, half of them from either end.
const MOST: usize = 40;

/// Adds the figure of agreement, where scores are compared.
pub fn figures(analysis: &Analysis, out: &mut Vec<Figure>) {
    // A score that is the same for every unit has no ranks to compare.
    let all = analysis.agreement.iter().filter(|a| a.scope == "all");
    let (mut listed, unknown): (Vec<&AgreementRow>, Vec<&AgreementRow>) =
        all.partition(|a| !a.spearman.is_nan());
    listed.sort_by(|a, b| b.spearman.total_cmp(&a.spearman));
    let (Some(&best), Some(&worst)) = (listed.first(), listed.last()) else { return };
    let known = listed.len();
    let between = known.saturating_sub(MOST);
    if between > 0 {
        listed.drain(MOST / 2..MOST / 2 + between);
    }
    let within = |a: &AgreementRow| {
        let same = |b: &&AgreementRow| {
            (&b.score_a, &b.score_b, &b.task, &b.method, b.unit)
                == (&a.score_a, &a.score_b, &a.task, &a.method, a.unit)
        };
        analysis.agreement.iter().filter(|b| b.scope == "within_layer").find(same)
    };
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
    let said = |a: &AgreementRow| format!("{} {}", number(a.spearman), interval(a.ci.0, a.ci.1));
    let (first, last) = (both(&best.score_a, &best.score_b), both(&worst.score_a, &worst.score_b));
    let finding = if known > 1 {
        format!("{first} agree best (Spearman {}), {last} least ({}).", said(best), said(worst))
    } else {
        format!("{first}: Spearman {}.", said(best))
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
    let text = format!("{between} in between");
    let svg = parted(&set, &rows, (between > 0).then_some((MOST / 2, text.as_str())));
    let mut how = "Lines are 95 % intervals by bootstrap over units; filled marks exclude 0.".to_owned();
    if between > 0 {
        how.push_str(&format!(
            " The {0} highest and the {0} lowest of {known}; the {between} in between are in the table agreement.",
            MOST / 2
        ));
    }
    if !unknown.is_empty() {
        how.push_str(&format!(
            " {} more can't be told, as a score is the same for every unit.",
            unknown.len()
        ));
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
    use super::*;
    use ablate_common::units::UnitKind;

    fn row(k: usize, spearman: f64) -> AgreementRow {
        AgreementRow {
            task: "wiki".into(),
            method: "mean".into(),
            unit: UnitKind::Head,
            score_a: format!("delta t{k}"),
            score_b: format!("rollout t{k}"),
            scope: "all",
            spearman,
            kendall: spearman / 2.0,
            ci: (spearman - 0.1, spearman + 0.1),
            kendall_low: -1.0,
            kendall_high: 1.0,
            top_k: 3,
            jaccard: 0.5,
            jaccard_low: 0.0,
            jaccard_high: 1.0,
        }
    }

    fn drawn(agreement: Vec<AgreementRow>) -> Option<Figure> {
        let mut out = Vec::new();
        let analysis = Analysis { groups: Vec::new(), agreement, polysemanticity: Vec::new() };
        figures(&analysis, &mut out);
        out.pop()
    }

    #[test]
    fn the_best_and_the_worst_of_many_are_named_and_drawn_and_what_is_unknown_is_neither() {
        // Of 66 known ones the last is the worst; the first is unknown.
        let mut rows: Vec<AgreementRow> = (1..=66).map(|k| row(k, 0.9 - 0.02 * k as f64)).collect();
        rows.insert(0, row(0, f64::NAN));
        let f = drawn(rows).unwrap();
        assert_eq!(
            f.finding,
            "delta – rollout, t1 agree best (Spearman 0.880 [+0.780, +0.980]), delta – rollout, t66 least (−0.420 [−0.520, −0.320])."
        );
        assert_eq!((f.svg.matches("data-tip=").count(), f.svg.matches("26 in between").count()), (40, 1));
        for (name, seen) in
            [("t1", true), ("t20", true), ("t21", false), ("t46", false), ("t47", true), ("t66", true)]
        {
            assert_eq!(f.svg.contains(&format!(">delta – rollout, {name}<")), seen, "{name}");
        }
        assert!(f.how.contains("The 20 highest and the 20 lowest of 66; the 26 in between are"), "{}", f.how);
        assert!(f.how.contains(" 1 more can't be told"), "{}", f.how);
        assert_eq!(f.data.unwrap().rows.len(), 67);
        // Of few all are drawn, and where nothing is known there is no figure.
        let f = drawn(vec![row(1, 0.2), row(2, 0.4)]).unwrap();
        assert!(f.finding.starts_with("delta – rollout, t2 agree best"), "{}", f.finding);
        assert!(!f.how.contains("highest") && !f.svg.contains("in between"), "{}", f.how);
        assert!(drawn(vec![row(1, f64::NAN)]).is_none());
    }

    #[test]
    fn what_names_share_is_said_once() {
        assert_eq!(both("delta ioi mean", "gradient ioi mean"), "delta – gradient, ioi mean");
        assert_eq!(both("delta ioi mean", "delta wiki mean"), "delta ioi – delta wiki, mean");
        assert_eq!(both("delta ioi mean", "delta ioi zero"), "delta ioi mean – delta ioi zero");
    }
}
