//! The pruning curves of one task under one ablation.

use super::{Maker, metric};
use crate::analyse::Group;
use crate::facts::{self, Family};
use crate::figure::curve::curves;
use crate::figure::draw::{number, percent, percent_within};
use crate::figure::{Figure, Part, Table, rounded, slug};
use ablate_common::plan::Shuffle;
use serde_json::json;

impl Maker<'_> {
    pub(super) fn curves(&self, out: &mut Vec<Figure>) {
        let g = self.g;
        for family in facts::families(g) {
            let Some(first) = family.all().next() else { continue };
            let own = if first.objective.is_empty() || first.objective == g.name {
                String::new()
            } else {
                format!(", greedy for {}", first.objective)
            };
            let finding = found(&family);
            let label = format!("{}: pruning curves. {finding}", self.title);
            let Some(svg) = curves(g, &family, &label) else { continue };
            let on = if first.half.is_some() {
                "the half of the documents that greedy did not select on"
            } else {
                "all examples, the same that greedy selected on"
            };
            let what = if family.flagged() {
                format!(
                    "{} itself: with no head at all it isn't measurably worse, so there is no share to retain.",
                    metric(g)
                )
            } else {
                format!(
                    "Retained is ({0} − {1}) / ({2} − {1}): 100 % is the whole model, 0 % is no head.",
                    metric(g),
                    number(first.floor),
                    number(first.start)
                )
            };
            let mut how = format!("{what} Measured on {on}.");
            if !family.named.is_empty() {
                how.push_str(" Bands of orders with a name are 95 % intervals.");
            }
            for (kind, orders) in family.shuffles() {
                how.push_str(&told(kind, orders.len(), g.unit.plural()));
            }
            let mut f = self.figure("curve", Part::Curves, &format!("Pruning{own}"), finding, how, svg);
            if !own.is_empty() {
                f.name = slug(&["curve", &g.name, g.method, self.unit, "for", &first.objective]);
            }
            f.data = Some(points(g, &family));
            out.push(f);
        }
    }
}

/// How `n` random orders of a kind are drawn; `units` are what they remove.
fn told(kind: Shuffle, n: usize, units: &str) -> String {
    let what = match kind {
        Shuffle::Plain => format!("Grey: {n} random orders"),
        Shuffle::Matched => {
            format!("Ochre: {n} random orders that remove as many {units} of each layer as greedy does")
        }
    };
    format!(" {what}, their median and their 5th to 95th percentile.")
}

/// What the curves of a family say.
fn found(family: &Family<'_>) -> String {
    let greedy = family.named.iter().find(|c| c.order == "greedy").or(family.named.first());
    let Some(c) = greedy else {
        let kinds: Vec<&str> = family.shuffles().iter().map(|(kind, _)| kind.plural()).collect();
        return format!("Removed in {}.", kinds.join(" and "));
    };
    let at79 = c.at(0.79).and_then(|p| Some((p, p.retained?)));
    let mut s = match (at79, c.at(0.79).or(c.points.last())) {
        (Some((p, r)), _) => format!(
            "Without {} of {} heads (79 %), the {} order retains {}",
            p.removed,
            c.heads,
            c.order,
            percent_within(r, p.retained_low.zip(p.retained_high))
        ),
        (None, Some(p)) => format!(
            "Without {} of {} heads, the {} order leaves {} of {}",
            p.removed,
            c.heads,
            c.order,
            number(p.value),
            number(c.start)
        ),
        (None, None) => return format!("The {} order.", c.order),
    };
    for (kind, orders) in family.shuffles() {
        let Some((median, low, high)) = facts::random_retained(orders, 0.79) else { continue };
        s.push_str(&format!(
            "; {} retain {} ({} to {})",
            kind.plural(),
            percent(median),
            percent(low),
            percent(high)
        ));
    }
    s.push('.');
    s
}

fn points(g: &Group, family: &Family<'_>) -> Table {
    let mut table = Table::new(&[
        "order",
        "step",
        "name",
        "removed",
        "fraction",
        "value",
        "value_low",
        "value_high",
        "retained",
        "retained_low",
        "retained_high",
    ]);
    let known = |v: Option<f64>| v.map_or(serde_json::Value::Null, |v| rounded(v, 6));
    for c in family.all() {
        for p in &c.points {
            table.rows.push(vec![
                json!(c.order),
                json!(p.step),
                json!(p.unit.map(|u| g.name_of(u))),
                json!(p.removed),
                rounded(c.fraction(p.removed), 5),
                rounded(p.value, 6),
                known(p.value_low),
                known(p.value_high),
                known(p.retained),
                known(p.retained_low),
                known(p.retained_high),
            ]);
        }
    }
    table
}
