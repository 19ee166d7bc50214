//! Units of one task under one ablation in pairs and groups.

use super::{LISTED, Maker, colour, metric};
use crate::analyse::{Group, PairRow, Relation};
use crate::facts;
use crate::figure::draw::{count, signed};
use crate::figure::forest::{ALL, Forest, Row, forest};
use crate::figure::matrix::{Square, matrix};
use crate::figure::{Figure, Part, Table, effects, graph, rounded};
use ablate_common::units::UnitIx;
use serde_json::json;
use std::collections::BTreeMap;

/// The numbers of some pairs.
fn numbers(g: &Group, pairs: &[&PairRow]) -> Table {
    let mut table = Table::new(&[
        "a",
        "b",
        "delta_a",
        "delta_b",
        "delta_ab",
        "interaction",
        "ci_low",
        "ci_high",
        "q_value",
        "relation",
    ]);
    for p in pairs {
        let i = &p.interaction;
        let mut row = vec![json!(g.name_of(p.a)), json!(g.name_of(p.b))];
        row.extend([p.delta_a, p.delta_b, p.delta_ab, i.value, i.low, i.high].map(|v| rounded(v, 6)));
        row.extend([rounded(p.q, 4), json!(p.relation.name())]);
        table.rows.push(row);
    }
    table
}

impl Maker<'_> {
    /// Groups and triples, measured together.
    pub(super) fn together(&self, out: &mut Vec<Figure>) {
        let (g, name) = (self.g, metric(self.g));
        if let Some((svg, finding, table)) = effects::groups(g, &name, &self.title) {
            let how = "Units every two of which are redundant, removed together: the joint Δ with its 95 % interval beside the sum of what each costs alone. Filled marks differ from that sum (q ≤ 0.05)."
                .to_owned();
            let mut f = self.figure("groups", Part::Pairs, "Redundancy groups", finding, how, svg);
            f.data = Some(table);
            out.push(f);
        }
        if let Some((svg, finding, table)) = effects::triples(g, &name, &self.title) {
            let how = "Third-order interaction: what the pairs leave unexplained when three are removed together. Lines are 95 % intervals; filled marks are resolved."
                .to_owned();
            let mut f = self.figure("triples", Part::Pairs, "Triples", finding, how, svg);
            f.data = Some(table);
            out.push(f);
        }
    }

    pub(super) fn pairs(&self, out: &mut Vec<Figure>) -> anyhow::Result<()> {
        let g = self.g;
        let Some(square) = Square::of(g) else { return Ok(()) };
        let (redundant, overlapping) =
            (facts::count(g, Relation::Redundant), facts::count(g, Relation::Overlapping));
        let finding = format!(
            "Of {} pairs, {} are redundant (losing both costs more than the sum) and {} overlap (it costs less), at q ≤ 0.05.",
            count(g.pairs.len()),
            count(redundant),
            count(overlapping)
        );
        let layered = g.places.iter().any(|p| p.layer.is_some_and(|l| l > 0));
        let strips = if layered { " Strips beside the matrix show each unit's layer." } else { "" };
        let how = format!("Interaction I = Δ(ab) − Δ(a) − Δ(b), coloured by the square root of |I|.{strips}");
        let tree = square.tree();
        let drawn = [
            tree.as_ref().map(|t| {
                (Some(t), "pairs", " Ordered by average linkage on the interaction: what stands in for each other stands together; the tree's joins are the further out the weaker they are.")
            }),
            Some((None, if tree.is_some() { "pairs-forward" } else { "pairs" }, if layered { " In forward order, layer by layer." } else { " In the order of the spec." })),
        ];
        for (tree, kind, order) in drawn.into_iter().flatten() {
            let label = format!("{}: interactions of every pair. {finding}", self.title);
            let m = matrix(g, &square, tree, &label)?;
            let title = "Every pair, removed together";
            let mut f =
                self.figure(kind, Part::Pairs, title, finding.clone(), format!("{how}{order}"), m.svg);
            f.order = Some(m.order);
            f.instead = kind == "pairs-forward";
            out.push(f);
        }
        self.strongest(out);
        self.graph(redundant + overlapping, out);
        Ok(())
    }

    fn strongest(&self, out: &mut Vec<Figure>) {
        let g = self.g;
        let mut listed: Vec<&PairRow> = facts::top_pairs(g, LISTED);
        let mut below: Vec<&PairRow> =
            g.pairs.iter().filter(|p| p.relation == Relation::Overlapping).collect();
        below.sort_by(|a, b| {
            a.interaction.value.total_cmp(&b.interaction.value).then((a.a, a.b).cmp(&(b.a, b.b)))
        });
        listed.extend(below.into_iter().take(4).rev());
        if listed.is_empty() {
            return;
        }
        let row = |p: &&PairRow| Row {
            name: format!("{} + {}", g.name_of(p.a), g.name_of(p.b)),
            value: [p.interaction.value, p.interaction.low, p.interaction.high],
            colour: colour(p.interaction.value),
            filled: p.relation != Relation::Unresolved,
            beside: None,
            tip: graph::told(g, p),
        };
        let rows: Vec<Row> = listed.iter().map(row).collect();
        let finding = match facts::redundant_pairs(g, 1).first() {
            Some(p) => format!(
                "{} and {} stand in for each other most: together {}, alone {} and {}.",
                g.name_of(p.a),
                g.name_of(p.b),
                signed(p.delta_ab),
                signed(p.delta_a),
                signed(p.delta_b)
            ),
            None => "No pair is measurably redundant.".to_owned(),
        };
        let label = format!("{}: the strongest interactions. {finding}", self.title);
        let axis = format!("interaction ({})", metric(g));
        let set =
            Forest { axis: &axis, beside: None, span: (0.0, 0.0), within: ALL, width: 500.0, label: &label };
        let svg = forest(&set, &rows);
        let how = "The pairs with the largest interactions, and those with the smallest where resolved. Lines are 95 % intervals; filled marks are resolved at q ≤ 0.05 over all pairs."
            .to_owned();
        let mut f = self.figure("top-pairs", Part::Pairs, "Strongest pairs", finding, how, svg);
        f.data = Some(numbers(g, &listed));
        out.push(f);
    }

    fn graph(&self, resolved: usize, out: &mut Vec<Figure>) {
        let g = self.g;
        let edges = graph::edges(g);
        let mut linked: BTreeMap<UnitIx, usize> = BTreeMap::new();
        for unit in edges.iter().flat_map(|p| [p.a, p.b]) {
            *linked.entry(unit).or_default() += 1;
        }
        let hub = linked.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        let Some((&hub, &of)) = hub else { return };
        let finding =
            format!("{} is in {of} of the {} strongest resolved pairs.", g.name_of(hub), edges.len());
        let label = format!("{}: graph of the strongest resolved pairs. {finding}", self.title);
        let Some(svg) = graph::graph(g, &label) else { return };
        let drawn = if edges.len() < resolved {
            format!("The {} strongest of {} resolved pairs", edges.len(), count(resolved))
        } else {
            format!("All {} resolved pairs", count(resolved))
        };
        let how = format!(
            "{drawn}, each where its heads stand in the model; the line is the thicker the stronger the interaction."
        );
        let mut f = self.figure("graph", Part::Pairs, "Who stands in for whom", finding, how, svg);
        f.data = Some(numbers(g, &edges));
        out.push(f);
    }
}
