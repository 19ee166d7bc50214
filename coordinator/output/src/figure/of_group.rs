//! The figures of one task under one ablation.

mod pruned;
mod together;

use super::draw::{count, interval, number, signed};
use super::forest::{Forest, Row, forest};
use super::heat::{heat, ranks, told};
use super::scatter::{Dot, Plot, scatter};
use super::{Figure, Part, Table, effects, rounded, slug, title_of};
use crate::analyse::{Analysis, Group, HeadRow, RESOLVED};
use crate::facts;
use ablate_common::metric::Metric;
use ablate_common::units::UnitKind;
use serde_json::json;

/// Rows of a list of the most important.
const LISTED: usize = 12;

/// Adds the figures of group `at`.
///
/// # Errors
/// Where an image can't be encoded.
pub fn figures(analysis: &Analysis, at: usize, several: bool, out: &mut Vec<Figure>) -> anyhow::Result<()> {
    let g = &analysis.groups[at];
    let title = title_of(g, &analysis.groups);
    let unit = if g.unit == UnitKind::Head { "" } else { g.unit.name() };
    let make = Maker { g, at, title: if several { title } else { g.name.clone() }, unit };
    make.heads(out);
    make.gradients(analysis, out);
    make.effects(out);
    make.pairs(out)?;
    make.together(out);
    make.curves(out);
    Ok(())
}

struct Maker<'a> {
    g: &'a Group,
    at: usize,
    title: String,
    unit: &'static str,
}

/// The metric as people write it.
pub fn metric(g: &Group) -> String {
    match g.metric {
        Metric::F1 | Metric::F1Binary => "F1".into(),
        Metric::Matthews => "Matthews correlation".into(),
        Metric::LogitDiff => "logit difference".into(),
        Metric::ProbDiff => "probability difference".into(),
        Metric::Kl => "KL divergence".into(),
        Metric::Bleu => "BLEU".into(),
        Metric::Pearson => "Pearson correlation".into(),
        Metric::Spearman => "Spearman correlation".into(),
        other => other.name().replace('_', " "),
    }
}

/// One of a group's units.
pub fn one(unit: UnitKind) -> &'static str {
    match unit {
        UnitKind::Head => "head",
        UnitKind::KvGroup => "KV group",
        UnitKind::Layer => "layer",
        UnitKind::Set => "set",
    }
}

fn colour(v: f64) -> &'static str {
    if v < 0.0 { "var(--down)" } else { "var(--up)" }
}

impl Maker<'_> {
    fn figure(
        &self,
        kind: &str,
        part: Part,
        title: &str,
        finding: String,
        how: String,
        svg: String,
    ) -> Figure {
        Figure {
            name: slug(&[kind, &self.g.name, self.g.method, self.unit]),
            part,
            group: Some(self.at),
            title: title.to_owned(),
            finding,
            how,
            svg,
            data: None,
            order: None,
            instead: false,
        }
    }

    fn heads(&self, out: &mut Vec<Figure>) {
        let g = self.g;
        if g.heads.is_empty() {
            return;
        }
        let (one, many) = (one(g.unit), g.unit.plural());
        let (hurts, helps) = facts::resolved_heads(g);
        let finding = format!(
            "Of {} {many}, removing one alone measurably hurts for {hurts} and helps for {helps} (q ≤ 0.05).",
            count(g.heads.len())
        );
        let label = format!("{}: Δ {} of every {one} removed alone. {finding}", self.title, metric(g));
        let worse = if g.metric.lower_is_better() { "rises" } else { "falls" };
        let how = format!(
            "Δ is how much {} {worse} when the {one} is removed ({} ablation); colour goes by the square root of |Δ|. Large squares are resolved at q ≤ 0.05, small ones are not; digits are the five most important.",
            metric(g),
            g.method
        );
        let map = heat(g, &label);
        let listed = self.listed(map.is_none());
        if let Some(svg) = map {
            let title = format!("Every {one}, removed alone");
            let mut f = self.figure("heads", Part::Heads, &title, finding, how, svg);
            f.data = Some(self.numbers(&g.heads.iter().collect::<Vec<_>>()));
            out.push(f);
        }
        let rank = ranks(g);
        let rows: Vec<Row> = listed
            .iter()
            .map(|h| Row {
                name: g.name_of(h.ix).to_owned(),
                value: [h.delta.value, h.delta.low, h.delta.high],
                colour: colour(h.delta.value),
                filled: h.q <= RESOLVED,
                beside: None,
                tip: told(g, h, rank.get(&h.ix.0).copied()),
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        let axis = format!("Δ {}", metric(g));
        let title = format!("Most important {many}");
        let finding = listed.first().map_or_else(String::new, |h| {
            format!(
                "{} costs most: Δ {} {}.",
                g.name_of(h.ix),
                signed(h.delta.value),
                interval(h.delta.low, h.delta.high)
            )
        });
        let how = "Lines are 95 % intervals, paired by example and clustered by document; filled marks are resolved at q ≤ 0.05."
            .to_owned();
        let label = format!("{}: {title}. {finding}", self.title);
        let set = Forest {
            axis: &axis,
            beside: None,
            span: (0.0, 0.0),
            within: super::forest::ALL,
            width: 500.0,
            label: &label,
        };
        let svg = forest(&set, &rows);
        let mut f = self.figure("top", Part::Heads, &title, finding, how, svg);
        f.data = Some(self.numbers(&listed));
        out.push(f);
    }

    /// The numbers of some units.
    fn numbers(&self, rows: &[&HeadRow]) -> Table {
        let g = self.g;
        let mut table = Table::new(&[
            "name", "stream", "layer", "head", "baseline", "value", "delta", "ci_low", "ci_high", "q_value",
        ]);
        for h in rows {
            let place = g.places.get(h.ix.at());
            table.rows.push(vec![
                json!(g.name_of(h.ix)),
                json!(place.and_then(|p| p.stream).map(|s| s.name())),
                json!(place.and_then(|p| p.layer)),
                json!(place.and_then(|p| p.head)),
                rounded(g.baseline, 6),
                rounded(h.value, 6),
                rounded(h.delta.value, 6),
                rounded(h.delta.low, 6),
                rounded(h.delta.high, 6),
                rounded(h.q, 4),
            ]);
        }
        table
    }

    /// The units whose removal hurts most, and those whose removal helps most where that is resolved; all where there is
    /// no map of them.
    fn listed(&self, all: bool) -> Vec<&HeadRow> {
        let g = self.g;
        if all {
            let mut v = facts::top_heads(g, 80);
            if g.unit == UnitKind::Layer {
                v.sort_by_key(|h| h.ix);
            }
            return v;
        }
        let order = facts::top_heads(g, usize::MAX);
        let helps = order.iter().rev().take(3).filter(|h| h.q <= RESOLVED && h.delta.value < 0.0);
        let mut v: Vec<&HeadRow> = order.iter().take(LISTED).copied().collect();
        let helps: Vec<&HeadRow> = helps.copied().collect();
        for h in helps.into_iter().rev() {
            if !v.iter().any(|o| o.ix == h.ix) {
                v.push(h);
            }
        }
        v
    }

    fn gradients(&self, analysis: &Analysis, out: &mut Vec<Figure>) {
        let g = self.g;
        if g.gradients.is_empty() || g.heads.is_empty() {
            return;
        }
        let dots: Vec<Dot> = g
            .heads
            .iter()
            .filter_map(|h| {
                let r = g.gradients.iter().find(|r| r.ix == h.ix)?;
                let (a, d) = (&r.attribution, &h.delta);
                Some(Dot {
                    name: g.name_of(h.ix).to_owned(),
                    x: [a.value, a.low, a.high],
                    y: [d.value, d.low, d.high],
                    strong: h.q <= RESOLVED,
                    tip: format!(
                        "{}\nestimated {} {}\nmeasured {} {}\ngradient importance {}",
                        g.name_of(h.ix),
                        signed(a.value),
                        interval(a.low, a.high),
                        signed(d.value),
                        interval(d.low, d.high),
                        number(r.importance)
                    ),
                })
            })
            .collect();
        let name = |kind: &str| format!("{kind} {} {}", g.name, g.method);
        let (delta, patched) = (name("delta"), name("attribution"));
        let agreed = analysis
            .agreement
            .iter()
            .find(|a| a.scope == "all" && a.unit == g.unit && a.score_a == delta && a.score_b == patched);
        let note = agreed.map_or_else(String::new, |a| {
            format!("Spearman {} {}", number(a.spearman), interval(a.ci.0, a.ci.1))
        });
        let finding = agreed.map_or_else(
            || "The gradient's estimate beside what was measured.".to_owned(),
            |a| {
                format!(
                    "The gradient's estimate ranks {} as measuring does with Spearman {} (95 % interval {} to {}).",
                    g.unit.plural(),
                    number(a.spearman),
                    number(a.ci.0),
                    number(a.ci.1)
                )
            },
        );
        let label = format!("{}: attribution and measured Δ of every unit. {finding}", self.title);
        let y = format!("Δ {} measured", metric(g));
        let plot = Plot {
            x: "Δ estimated by attribution patching (of the loss)",
            y: &y,
            equal: false,
            note,
            colour: "var(--c3)",
            names: 6,
            label: &label,
        };
        let Some(svg) = scatter(&plot, &dots) else { return };
        let how = "A point for each unit, coloured where its measured Δ is resolved; lines are 95 % intervals. Attribution patching is the first-order estimate from one backward pass."
            .to_owned();
        let mut table = Table::new(&[
            "name",
            "importance",
            "attribution",
            "attribution_low",
            "attribution_high",
            "delta",
        ]);
        for r in &g.gradients {
            let delta = g.heads.iter().find(|h| h.ix == r.ix).map_or(f64::NAN, |h| h.delta.value);
            let mut row = vec![json!(g.name_of(r.ix))];
            row.extend(
                [r.importance, r.attribution.value, r.attribution.low, r.attribution.high, delta]
                    .map(|v| rounded(v, 6)),
            );
            table.rows.push(row);
        }
        let mut f =
            self.figure("gradients", Part::Heads, "Estimated by gradient, and measured", finding, how, svg);
        f.data = Some(table);
        out.push(f);
    }

    /// Self-repair, activation shift, and what chance has added to the largest effects.
    fn effects(&self, out: &mut Vec<Figure>) {
        let (g, name) = (self.g, metric(self.g));
        if let Some((svg, finding, table)) = effects::selected(g, &name, &self.title) {
            let how = "Chosen on one half of the documents (grey ticks), measured on the other (marks with 95 % intervals), so that no luck of the choice is in the estimate."
                .to_owned();
            let mut f =
                self.figure("selected", Part::Heads, "The largest, measured again", finding, how, svg);
            f.data = Some(table);
            out.push(f);
        }
        if let Some((svg, finding)) = effects::repair(g, &name, &self.title) {
            let how = "A point for each unit: its direct effect with everything downstream frozen, and its whole effect. Between the dashed line, where both are equal, and 0 what comes behind makes up for a part; on the far side of the line it amplifies, across 0 it turns the sign. Upright lines are 95 % intervals of the difference; coloured points are resolved."
                .to_owned();
            let mut f = self.figure("repair", Part::Heads, "Self-repair", finding, how, svg);
            let mut table =
                Table::new(&["name", "direct", "total", "repair", "ci_low", "ci_high", "q_value"]);
            for r in &g.repair {
                let mut row = vec![json!(g.name_of(r.ix))];
                row.extend(
                    [r.direct, r.total, r.repair.value, r.repair.low, r.repair.high, r.q]
                        .map(|v| rounded(v, 6)),
                );
                table.rows.push(row);
            }
            f.data = Some(table);
            out.push(f);
        }
        if let Some((svg, finding)) = effects::shift(g, &self.title) {
            let how = "Mean norm of the residual stream with the unit removed, by that of the whole model, after each layer; dashed lines are a factor of 2. Black: every head removed."
                .to_owned();
            let mut f = self.figure("shift", Part::Heads, "Activation shift", finding, how, svg);
            let mut table = Table::new(&[
                "name",
                "at_stream",
                "at_layer",
                "unablated",
                "norm",
                "ratio",
                "largest",
                "reference_ratio",
                "flagged",
            ]);
            for r in &g.shift {
                let mut row = vec![json!(r.ix.map_or("all", |u| g.name_of(u)))];
                row.extend([json!(r.at_stream.name()), json!(r.at_layer)]);
                let to_reference = r.reference_ratio.unwrap_or(f64::NAN);
                row.extend([r.unablated, r.norm, r.ratio, r.largest, to_reference].map(|v| rounded(v, 5)));
                row.push(json!(r.flagged));
                table.rows.push(row);
            }
            f.data = Some(table);
            out.push(f);
        }
    }
}
