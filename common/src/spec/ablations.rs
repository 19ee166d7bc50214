//! `[[ablation]]`: methods, units and reference sets.

use super::table::{Table, Value};
use super::{AblationSpec, Error};
use crate::head::Head;
use crate::plan::{Ablation, Donors, Pool};
use crate::units::{HeadSet, UnitKind};

/// Steps of the fit of an optimal ablation, unless told otherwise.
const STEPS: u32 = 32;
/// Its learning rate, unless told otherwise.
const RATE: f64 = 0.1;

/// All ablations of a spec.
pub fn ablations(top: &Table<'_>) -> Result<Vec<AblationSpec>, Error> {
    let mut out: Vec<AblationSpec> = Vec::new();
    for t in top.tables("ablation", "[ablation]")? {
        let ablation = ablation(&t)?;
        let same = |o: &&AblationSpec| o.method.name() == ablation.method.name() && o.unit == ablation.unit;
        if out.iter().any(|o| same(&o)) {
            return Err(t.error(format!(
                "method \"{}\" with unit \"{}\" is there twice; tables tell ablations apart by these two, so run two specs",
                ablation.method.name(),
                ablation.unit.name()
            )));
        }
        out.push(ablation);
    }
    if out.is_empty() {
        return Err(top.error(
            "[ablation] is missing; add it with method = \"mean\" (or \"zero\", \"resample\", \"optimal\", \"scale\")",
        ));
    }
    Ok(out)
}

fn ablation(t: &Table<'_>) -> Result<AblationSpec, Error> {
    let known = ["method", "pool", "scale", "donors", "steps", "rate", "unit", "sets", "reference"];
    t.only(&known, &[])?;
    let method = t.need("method", "\"mean\"")?;
    let name = method.text()?;
    let built = [("zero", 0), ("mean", 1), ("resample", 2), ("scale", 3), ("optimal", 4)];
    let method = match method.choice(&built, &[])? {
        0 => Ablation::Zero,
        1 => {
            let pools = [("tokens", Pool::Tokens), ("position", Pool::Position)];
            Ablation::Mean { pool: t.get("pool").map_or(Ok(Pool::Tokens), |v| v.choice(&pools, &[]))? }
        }
        2 => {
            let donors = [("seeded", Donors::Seeded), ("paired", Donors::Paired)];
            let donors = t.get("donors").map_or(Ok(Donors::Seeded), |v| v.choice(&donors, &[]))?;
            Ablation::Resample { donors }
        }
        4 => Ablation::Optimal {
            steps: t.get("steps").map_or(Ok(STEPS), |v| v.small(1, 10_000))?,
            rate: match t.get("rate") {
                None => RATE,
                Some(v) => match v.number()? {
                    rate if rate > 0.0 && rate <= 10.0 => rate,
                    _ => return Err(v.error("rate should be above 0 and at most 10")),
                },
            },
        },
        _ => Ablation::Scale { scale: t.need("scale", "0.5")?.number()? },
    };
    for (key, of) in [
        ("pool", "mean"),
        ("donors", "resample"),
        ("scale", "scale"),
        ("steps", "optimal"),
        ("rate", "optimal"),
    ] {
        if let Some(v) = t.get(key)
            && name != of
        {
            return Err(v.error(format!("{key} is for method = \"{of}\" only; leave it out")));
        }
    }
    let unit = t.get("unit").map_or(Ok(UnitKind::Head), |v| {
        let kinds = [UnitKind::Head, UnitKind::KvGroup, UnitKind::Layer, UnitKind::Set];
        v.choice(&kinds.map(|k| (k.name(), k)), &[])
    })?;
    let sets = match (unit, t.get("sets")) {
        (UnitKind::Set, Some(v)) => sets(&v)?,
        (UnitKind::Set, None) => {
            return Err(t.error(
                "unit = \"set\" needs sets; name them in [ablation.sets], for example early = [\"L0.H3\", \"L1.H2\"]",
            ));
        }
        (_, Some(v)) => return Err(v.error("sets is for unit = \"set\" only; leave it out")),
        (_, None) => Vec::new(),
    };
    let reference = t.get("reference").map(|v| reference(&v, method)).transpose()?;
    Ok(AblationSpec { method, unit, sets, reference })
}

/// Named lists of heads, in the file's order.
fn sets(v: &Value<'_>) -> Result<Vec<HeadSet>, Error> {
    let mut out = Vec::new();
    for (name, v) in v.entries()? {
        if name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(v.error("the name of a set should have 1 to 100 printable characters"));
        }
        let mut heads: Vec<Head> = Vec::new();
        for item in v.list()? {
            let head = item.text()?.parse().map_err(|e: String| item.error(e))?;
            if heads.contains(&head) {
                return Err(item.error(format!("head {head} is there twice in set \"{name}\"")));
            }
            heads.push(head);
        }
        if heads.is_empty() {
            return Err(v.error(format!("set \"{name}\" selects no head; list one, for example [\"L0.H3\"]")));
        }
        out.push(HeadSet { name: name.to_owned(), heads });
    }
    if out.is_empty() {
        return Err(v.error("sets names no set; add one, for example early = [\"L0.H3\", \"L1.H2\"]"));
    }
    Ok(out)
}

fn reference(v: &Value<'_>, method: Ablation) -> Result<String, Error> {
    match method {
        Ablation::Mean { .. } | Ablation::Optimal { .. } | Ablation::Resample { donors: Donors::Seeded } => {}
        Ablation::Resample { donors: Donors::Paired } => {
            return Err(v.error(
                "reference isn't for donors = \"paired\", whose donors are the records' counterfactuals; leave it out",
            ));
        }
        _ => {
            return Err(v.error(
                "reference is for method = \"mean\" and \"optimal\", and for \"resample\" with seeded donors only; leave it out",
            ));
        }
    }
    let path = v.text()?;
    let ending = path.rsplit_once('.').map_or("", |p| p.1).to_ascii_lowercase();
    match ending.as_str() {
        "jsonl" | "parquet" | "txt" => Ok(path.to_owned()),
        _ => Err(v.error(format!(
            "reference can't be read from {path:?}: its name ends in .jsonl, .parquet or .txt"
        ))),
    }
}
