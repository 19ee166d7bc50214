//! The units of a plan: those of each ablation, narrowed to the streams of a sweep.

use crate::Error;
use ablate_common::head::Head;
use ablate_common::model::ModelInfo;
use ablate_common::spec::{AblationSpec, Spec, SweepKindSpec, SweepSpec};
use ablate_common::units::{UnitIx, UnitMap};

/// Unit maps, each once, in the order of their first use.
#[derive(Default)]
pub struct Maps(pub Vec<UnitMap>);

impl Maps {
    /// The place of `map`.
    pub fn put(&mut self, map: UnitMap) -> u32 {
        let at = self.0.iter().position(|m| *m == map).unwrap_or_else(|| {
            self.0.push(map);
            self.0.len() - 1
        });
        at as u32
    }
}

/// The units of the ablation at `at` of the spec.
pub fn of(at: usize, ablation: &AblationSpec, model: &ModelInfo) -> Result<UnitMap, Error> {
    UnitMap::of(ablation.unit, model, &ablation.sets).map_err(|(set, head)| {
        Error::Input(format!(
            "[[ablation]] {}: set {set:?} selects no head with {head}: {} has {}; correct {set}",
            at + 1,
            model.title,
            shape(model)
        ))
    })
}

/// `map` as the sweep at `at` of the spec sees it.
pub fn narrowed(at: usize, sweep: &SweepSpec, map: &UnitMap, model: &ModelInfo) -> Result<UnitMap, Error> {
    let Some(streams) = &sweep.streams else { return Ok(map.clone()) };
    let has = |s| model.heads.streams.iter().any(|m| m.0 == s);
    if let Some(none) = streams.iter().find(|s| !has(**s)) {
        return Err(Error::Input(format!(
            "[[sweep]] {}: stream \"{none}\" selects no head: {} has {}; correct streams",
            at + 1,
            model.title,
            shape(model)
        )));
    }
    let some = map.narrowed(&model.heads, streams);
    if some.is_empty() {
        return Err(Error::Input(format!(
            "[[sweep]] {}: no set lies wholly in its streams, so that it selects no head; correct streams",
            at + 1
        )));
    }
    Ok(some)
}

/// The units of a sweep given a base, and that base among them: what lies in the sweep's streams, and the base wherever it lies.
/// The sweep is that at `at` of the spec, `map` are all units of the ablation at `ablation`, `names` the base's.
pub fn given(
    at: usize,
    spec: &Spec,
    names: &[String],
    (ablation, map): (usize, &UnitMap),
    model: &ModelInfo,
) -> Result<(UnitMap, Vec<UnitIx>), Error> {
    let sweep = &spec.sweeps[at];
    // Says where streams are wrong.
    narrowed(at, sweep, map, model)?;
    let every = || (0..map.len() as u32).map(UnitIx);
    let name_of = |unit| map.place(&model.heads, unit).map_or_else(String::new, |p| p.name);
    let mut base = Vec::with_capacity(names.len());
    for name in names {
        let Some(unit) = named(map, model, name) else {
            let last = UnitIx((map.len() as u32).saturating_sub(1));
            // A sweep runs for every ablation, so that its base must be among the units of each.
            let elsewhere = (1..).zip(&spec.ablations).find(|&(k, a)| {
                k != ablation + 1 && of(k - 1, a, model).is_ok_and(|m| named(&m, model, name).is_some())
            });
            let advice = match elsewhere {
                Some((k, _)) => format!("[[ablation]] {k} has it: give that unit a spec of its own"),
                None => "correct base".to_owned(),
            };
            return Err(Error::Input(format!(
                "[[sweep]] {}: {name:?} is none of the {} that [[ablation]] {} removes ({} to {}); {advice}",
                at + 1,
                map.kind.plural(),
                ablation + 1,
                name_of(UnitIx(0)),
                name_of(last)
            )));
        };
        if base.contains(&unit) {
            return Err(Error::Input(format!(
                "[[sweep]] {}: {name:?} is there twice; name each unit once in base",
                at + 1
            )));
        }
        base.push(unit);
    }
    let inside = |unit| sweep.streams.as_ref().is_none_or(|s| map.lies_in(&model.heads, s, unit));
    let kept: Vec<UnitIx> = every().filter(|u| base.contains(u) || inside(*u)).collect();
    if kept.len() < base.len() + 2 {
        return Err(Error::Input(format!(
            "[[sweep]] {}: {} of {} {} are left beside those that are already removed, and a pair needs two; name fewer in base",
            at + 1,
            kept.len() - base.len(),
            kept.len(),
            map.kind.plural()
        )));
    }
    let own = (0u32..).zip(&kept).filter(|(_, u)| base.contains(u)).map(|(i, _)| UnitIx(i)).collect();
    Ok((map.kept(|u| kept.contains(&u)), own))
}

/// The unit of that name. A head may also be written with "self", and with zeros before its numbers.
fn named(map: &UnitMap, model: &ModelInfo, name: &str) -> Option<UnitIx> {
    let plain = name.parse::<Head>().map_or_else(|_| name.to_owned(), |h| h.to_string());
    let is = |u: &UnitIx| map.place(&model.heads, *u).is_some_and(|p| p.name == name || p.name == plain);
    (0..map.len() as u32).map(UnitIx).find(is)
}

/// Checks that orders matched per layer can differ from greedy's own: that some layer has two units.
fn layered(at: usize, ablation: usize, map: &UnitMap, model: &ModelInfo) -> Result<(), Error> {
    let mut layers = map.layers(&model.heads);
    layers.sort_unstable();
    if layers.windows(2).any(|w| w[0] == w[1]) {
        return Ok(());
    }
    Err(Error::Input(format!(
        "[[sweep]] {}: orders = \"matched\" has nothing to draw from: no layer has two of the {} that [[ablation]] {} removes, so that \
         each such order would be greedy's own; leave it out, or give that unit a spec of its own",
        at + 1,
        map.kind.plural(),
        ablation + 1
    )))
}

/// Checks every unit and stream of a spec.
pub fn check(spec: &Spec, model: &ModelInfo) -> Result<(), Error> {
    for (a, ablation) in spec.ablations.iter().enumerate() {
        let map = of(a, ablation, model)?;
        for (s, sweep) in spec.sweeps.iter().enumerate() {
            // Attention is always that of heads.
            let heads = matches!(sweep.kind, SweepKindSpec::Attention { .. });
            let heads = heads.then(|| UnitMap::heads(&model.heads));
            match &sweep.kind {
                SweepKindSpec::Conditional { base } => drop(given(s, spec, base, (a, &map), model)?),
                SweepKindSpec::Greedy { matched: 1.., .. } => {
                    layered(s, a, &narrowed(s, sweep, &map, model)?, model)?;
                }
                _ => drop(narrowed(s, sweep, heads.as_ref().unwrap_or(&map), model)?),
            }
        }
    }
    Ok(())
}

/// "stream self (L0.H0 to L5.H11)".
fn shape(model: &ModelInfo) -> String {
    let each = model.heads.streams.iter().map(|&(stream, layers, heads)| {
        format!("stream {stream} (L0.H0 to L{}.H{})", layers.saturating_sub(1), heads.saturating_sub(1))
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ablate_common::head::HeadMap;
    use ablate_common::model::Details;
    use ablate_common::spec::parse;

    /// What is wrong with a spec for a model of two layers of four heads that share so many K/V heads.
    fn wrong(kv: u32, rest: &str) -> String {
        let model = ModelInfo {
            arch: "llama".into(),
            title: "m".into(),
            weights_sha256: String::new(),
            heads: HeadMap::single_stream(2, 4),
            layers: 2,
            d_model: 8,
            n_heads: 4,
            n_kv_heads: kv,
            head_dim: 2,
            d_ff: 8,
            vocab: 9,
            context: 16,
            norm_eps: 1e-5,
            rope_theta: None,
            tied: true,
            details: Details::default(),
        };
        let text = format!(
            "name = \"x\"\n[model]\nsource = \"m.gguf\"\n[[task]]\nname = \"t\"\nkind = \"induction\"\n{rest}"
        );
        check(&parse(&text, "x").unwrap(), &model).map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn matched_orders_need_a_layer_of_two_units() {
        let of = |unit: &str, order: &str| {
            format!(
                "[ablation]\nmethod = \"zero\"\nunit = \"{unit}\"\n[[sweep]]\nkind = \"greedy\"\norders = [\"greedy\", \"{order}\"]\n"
            )
        };
        assert_eq!(wrong(1, &of("head", "matched")), "");
        assert_eq!(wrong(2, &of("kv_group", "matched")), "");
        assert_eq!(wrong(1, &of("kv_group", "random")), "");
        let e = wrong(1, &of("kv_group", "matched"));
        assert!(e.starts_with("[[sweep]] 1: orders = \"matched\" has nothing to draw from"), "{e}");
        assert!(e.contains("no layer has two of the KV groups that [[ablation]] 1 removes"), "{e}");
    }

    #[test]
    fn a_base_of_another_ablation_is_sent_to_a_spec_of_its_own() {
        let of = |base: &str| {
            format!(
                "[[ablation]]\nmethod = \"zero\"\n[[ablation]]\nmethod = \"zero\"\nunit = \"kv_group\"\n[[sweep]]\nkind = \"pairs\"\nbase = [{base:?}]\n"
            )
        };
        let e = wrong(2, &of("L1.KV0"));
        assert!(
            e.contains("that [[ablation]] 1 removes")
                && e.contains("; [[ablation]] 2 has it: give that unit"),
            "{e}"
        );
        let e = wrong(2, &of("self L01.H2"));
        assert!(
            e.contains("that [[ablation]] 2 removes")
                && e.contains("; [[ablation]] 1 has it: give that unit"),
            "{e}"
        );
        let e = wrong(2, &of("L2.H0"));
        assert!(e.contains("that [[ablation]] 1 removes") && e.ends_with("; correct base"), "{e}");
    }
}
