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
/// `map` are all units of the ablation at `ablation` of the spec, `names` the base's.
pub fn given(
    at: usize,
    sweep: &SweepSpec,
    names: &[String],
    (ablation, map): (usize, &UnitMap),
    model: &ModelInfo,
) -> Result<(UnitMap, Vec<UnitIx>), Error> {
    // Says where streams are wrong.
    narrowed(at, sweep, map, model)?;
    let every = || (0..map.len() as u32).map(UnitIx);
    let name_of = |unit| map.place(&model.heads, unit).map_or_else(String::new, |p| p.name);
    let mut base = Vec::with_capacity(names.len());
    for name in names {
        // "self L0.H3" is another way to write "L0.H3".
        let plain = name.parse::<Head>().map_or_else(|_| name.clone(), |h| h.to_string());
        let Some(unit) = every().find(|&u| [name, &plain].contains(&&name_of(u))) else {
            let last = UnitIx((map.len() as u32).saturating_sub(1));
            return Err(Error::Input(format!(
                "[[sweep]] {}: {name:?} is none of the {} that [[ablation]] {} removes ({} to {}); correct base",
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

/// Checks every unit and stream of a spec.
pub fn check(spec: &Spec, model: &ModelInfo) -> Result<(), Error> {
    for (a, ablation) in spec.ablations.iter().enumerate() {
        let map = of(a, ablation, model)?;
        for (s, sweep) in spec.sweeps.iter().enumerate() {
            // Attention is always that of heads.
            let heads = matches!(sweep.kind, SweepKindSpec::Attention { .. });
            let heads = heads.then(|| UnitMap::heads(&model.heads));
            match &sweep.kind {
                SweepKindSpec::Conditional { base } => drop(given(s, sweep, base, (a, &map), model)?),
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
