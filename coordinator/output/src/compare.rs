//! `ablate compare`: whether runs of several seeds or data sets rank the heads alike.

mod print;

use crate::agreement::Agreement;
use crate::analyse::heads_only;
use crate::results::Results;
use crate::write::Format;
use ablate_common::head::Stream;
use ablate_common::stats::point::midranks;
use anyhow::Context as _;
use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

/// One unit's delta in a run, as in `heads`.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    task: String,
    method: String,
    unit: String,
    stream: Option<String>,
    layer: Option<u32>,
    head: Option<u32>,
    name: Option<String>,
    delta: Option<f64>,
    se: Option<f64>,
}

/// Every unit's delta of one run.
#[derive(Clone, Debug)]
pub struct Run {
    name: String,
    lines: Vec<Line>,
}

impl Run {
    /// From stored scores.
    #[must_use]
    pub fn of(name: String, results: &Results) -> Self {
        let mut lines = Vec::new();
        for g in heads_only(results) {
            for h in &g.heads {
                let Some(place) = g.places.get(h.ix.at()) else { continue };
                let known = |v: f64| (!v.is_nan()).then_some(v);
                lines.push(Line {
                    task: g.name.clone(),
                    method: g.method.to_owned(),
                    unit: g.unit.name().to_owned(),
                    stream: place.stream.map(|s| Stream::name(s).to_owned()),
                    layer: place.layer,
                    head: place.head,
                    name: Some(place.name.clone()),
                    delta: known(h.delta.value),
                    se: known(h.delta.se),
                });
            }
        }
        Self { name, lines }
    }

    /// From the table `heads` of a folder, in any format; `None` where it holds none.
    ///
    /// # Errors
    /// Where the table can't be read.
    pub fn read(name: String, folder: &Path) -> anyhow::Result<Option<Self>> {
        for format in [Format::Parquet, Format::Json, Format::Csv] {
            let path = folder.join(format!("heads.{}", format.extension()));
            if path.exists() {
                let lines = read(&path, format).with_context(|| format!("can't read {}", path.display()))?;
                return Ok(Some(Self { name, lines }));
            }
        }
        Ok(None)
    }
}

fn read(path: &Path, format: Format) -> anyhow::Result<Vec<Line>> {
    let mut file = File::open(path)?;
    let batches: Vec<RecordBatch> = match format {
        Format::Json => return Ok(serde_json::from_reader(BufReader::new(file))?),
        Format::Parquet => {
            ParquetRecordBatchReaderBuilder::try_new(file)?.build()?.collect::<Result<_, _>>()?
        }
        Format::Csv => {
            let (schema, _) =
                arrow_csv::reader::Format::default().with_header(true).infer_schema(&mut file, None)?;
            file.rewind()?;
            let reader = arrow_csv::ReaderBuilder::new(Arc::new(schema)).with_header(true).build(file)?;
            reader.collect::<Result<_, _>>()?
        }
    };
    let mut writer = arrow_json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let text = writer.into_inner();
    Ok(if text.is_empty() { Vec::new() } else { serde_json::from_slice(&text)? })
}

/// How two runs agree on one score.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRuns {
    /// The task; of runs with a task of their own each, both.
    pub task: String,
    /// The ablation.
    pub method: String,
    /// What it removes as a whole.
    pub unit: String,
    /// First run.
    pub run_a: String,
    /// Second run.
    pub run_b: String,
    /// "all" or "within_layer", as in `agreement`.
    pub scope: &'static str,
    /// Spearman's correlation of the deltas.
    pub spearman: f64,
    /// Its 95 % interval, by bootstrap over units.
    pub spearman_ci: (f64, f64),
    /// Kendall's τ-b.
    pub kendall: f64,
    /// Its 95 % interval.
    pub kendall_ci: (f64, f64),
    /// How many units count as the first.
    pub top_k: usize,
    /// Jaccard's index of the units that both runs rank first.
    pub jaccard: f64,
    /// Its 95 % interval.
    pub jaccard_ci: (f64, f64),
}

/// One unit over all runs.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedUnit {
    /// The task; of runs with a task of their own each, all.
    pub task: String,
    /// The ablation.
    pub method: String,
    /// What it removes as a whole.
    pub unit: String,
    /// Stream; none for a set.
    pub stream: Option<String>,
    /// Layer; none for a set.
    pub layer: Option<u32>,
    /// Head, or the first of a KV group.
    pub head: Option<u32>,
    /// Its name.
    pub name: String,
    /// Runs that have its delta.
    pub runs: u32,
    /// Mean over the runs of its rank by descending delta, from 1.
    pub mean_rank: f64,
    /// Its best rank.
    pub best_rank: f64,
    /// Its worst rank.
    pub worst_rank: f64,
    /// Share of the runs in which its delta has the commoner sign.
    pub sign_agreement: f64,
    /// Runs in which it is among the first tenth.
    pub in_top: u32,
    /// Mean of its deltas, by inverse variance.
    pub pooled: f64,
    /// Standard error of that, as if the runs were independent and estimated one number.
    pub pooled_se: f64,
    /// Lower end of its 95 % interval.
    pub pooled_low: f64,
    /// Upper end.
    pub pooled_high: f64,
    /// I²: share of the variance between runs that their standard errors don't explain [Higgins & Thompson 2002].
    pub i2: f64,
}

/// What is found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Names of the runs.
    pub runs: Vec<String>,
    /// Every two runs, score by score.
    pub agreement: Vec<ComparedRuns>,
    /// Every unit, score by score, by ascending mean rank.
    pub units: Vec<ComparedUnit>,
}

/// A score that all runs have: what it is called, and per run its units.
struct Shared<'a> {
    task: String,
    method: String,
    unit: String,
    /// In the order of the first run.
    units: Vec<&'a Line>,
    /// `lines[run][unit]`.
    lines: Vec<Vec<&'a Line>>,
}

type Key = (String, String, String);

/// Compares the deltas that all `runs` have.
///
/// # Errors
/// Where there are fewer than two runs, they share no score, or have other units: what is wrong; what to do.
pub fn compare(runs: &[Run], seed: u64) -> Result<Comparison, String> {
    if runs.len() < 2 {
        return Err("there is one run only; name two or more".into());
    }
    let (mut agreement, mut units) = (Vec::new(), Vec::new());
    for shared in &shared(runs)? {
        let delta = |lines: &[&Line]| lines.iter().map(|l| l.delta.unwrap_or(f64::NAN)).collect::<Vec<f64>>();
        let deltas: Vec<Vec<f64>> = shared.lines.iter().map(|l| delta(l)).collect();
        for a in 0..runs.len() {
            for b in a + 1..runs.len() {
                agree(shared, [&runs[a], &runs[b]], [&deltas[a], &deltas[b]], seed, &mut agreement);
            }
        }
        units.extend(over_runs(shared, &deltas));
    }
    Ok(Comparison { runs: runs.iter().map(|r| r.name.clone()).collect(), agreement, units })
}

/// The scores that all runs have, by task, method and unit; else, where each run has one task under a method, that.
fn shared(runs: &[Run]) -> Result<Vec<Shared<'_>>, String> {
    let mut of: Vec<BTreeMap<Key, Vec<&Line>>> = Vec::new();
    for run in runs {
        let mut scores: BTreeMap<Key, Vec<&Line>> = BTreeMap::new();
        for line in &run.lines {
            scores.entry((line.task.clone(), line.method.clone(), line.unit.clone())).or_default().push(line);
        }
        of.push(scores);
    }
    let [first, others @ ..] = of.as_slice() else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (key, units) in first {
        let rest = others.iter().map(|s| s.get(key)).collect::<Option<Vec<_>>>();
        if let Some(rest) = rest {
            let all = std::iter::once(units).chain(rest).cloned().collect();
            out.push((key.0.clone(), key, all));
        }
    }
    if out.is_empty() {
        for (key, units) in first {
            let one = |scores: &BTreeMap<Key, Vec<&'_ Line>>| {
                scores.keys().filter(|k| (&k.1, &k.2) == (&key.1, &key.2)).count() == 1
            };
            let of_run = |scores| -> Option<(&Key, &Vec<&Line>)> {
                let scores: &BTreeMap<Key, Vec<&Line>> = scores;
                scores.iter().find(|s| (&s.0.1, &s.0.2) == (&key.1, &key.2))
            };
            let Some(rest) = others.iter().map(of_run).collect::<Option<Vec<_>>>() else { continue };
            if of.iter().all(one) {
                let names: Vec<&str> = rest.iter().map(|r| r.0.0.as_str()).collect();
                let all = std::iter::once(units).chain(rest.into_iter().map(|r| r.1)).cloned().collect();
                out.push((format!("{} / {}", key.0, names.join(" / ")), key, all));
            }
        }
    }
    if out.is_empty() {
        let have = |(run, scores): (&Run, &BTreeMap<Key, _>)| {
            let keys: Vec<String> =
                scores.keys().map(|k| format!("{} by {} of {}s", k.0, k.1, k.2)).collect();
            format!("{} has {}", run.name, if keys.is_empty() { "no deltas".into() } else { keys.join(", ") })
        };
        let have: Vec<String> = runs.iter().zip(&of).map(have).collect();
        return Err(format!(
            "the runs share no task under one ablation ({}); name runs of the same tasks and methods with a single sweep",
            have.join(", ")
        ));
    }
    out.into_iter().map(|(task, key, all)| aligned(runs, task, key, all)).collect()
}

/// Brings every run's units into the order of the first's.
fn aligned<'a>(runs: &[Run], task: String, key: &Key, all: Vec<Vec<&'a Line>>) -> Result<Shared<'a>, String> {
    let name = |l: &Line| l.name.clone().unwrap_or_default();
    let names: Vec<BTreeSet<String>> = all.iter().map(|l| l.iter().map(|l| name(l)).collect()).collect();
    for (run, own) in runs.iter().zip(&names).skip(1) {
        let (first, own_first) = (names[0].difference(own).next(), own.difference(&names[0]).next());
        if let Some(missing) = first.or(own_first) {
            let (has, lacks) = if first.is_some() { (&runs[0], run) } else { (run, &runs[0]) };
            return Err(format!(
                "{} has {} {}s and {} has {}: {missing} is in {} and not in {}; compare runs of one model that are complete",
                runs[0].name,
                names[0].len(),
                key.2,
                run.name,
                own.len(),
                has.name,
                lacks.name
            ));
        }
    }
    let units = all[0].clone();
    let ordered = |lines: Vec<&'a Line>| -> Vec<&'a Line> {
        let by_name: BTreeMap<String, &Line> = lines.into_iter().map(|l| (name(l), l)).collect();
        units.iter().filter_map(|u| by_name.get(&name(u)).copied()).collect()
    };
    let lines = all.into_iter().map(ordered).collect();
    Ok(Shared { task, method: key.1.clone(), unit: key.2.clone(), units: units.clone(), lines })
}

/// Adds how two runs agree.
fn agree(s: &Shared<'_>, runs: [&Run; 2], [a, b]: [&Vec<f64>; 2], seed: u64, out: &mut Vec<ComparedRuns>) {
    let known: Vec<usize> = (0..a.len()).filter(|&i| !a[i].is_nan() && !b[i].is_nan()).collect();
    if known.len() < 2 {
        return;
    }
    let pick = |v: &[f64]| known.iter().map(|&i| v[i]).collect::<Vec<f64>>();
    let (x, y) = (pick(a), pick(b));
    let mut layers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (at, &i) in known.iter().enumerate() {
        layers.entry((&s.units[i].stream, s.units[i].layer)).or_default().push(at);
    }
    let mut scopes = vec![("all", vec![(0..x.len()).collect::<Vec<usize>>()])];
    if matches!(s.unit.as_str(), "head" | "kv_group") {
        scopes.push(("within_layer", layers.into_values().collect()));
    }
    for (scope, parts) in scopes {
        let found = Agreement::of(&parts, &x, &y, seed);
        out.push(ComparedRuns {
            task: s.task.clone(),
            method: s.method.clone(),
            unit: s.unit.clone(),
            run_a: runs[0].name.clone(),
            run_b: runs[1].name.clone(),
            scope,
            spearman: found.values[0],
            spearman_ci: found.intervals[0],
            kendall: found.values[1],
            kendall_ci: found.intervals[1],
            top_k: found.top_k,
            jaccard: found.values[2],
            jaccard_ci: found.intervals[2],
        });
    }
}

/// Every unit of a score over the runs.
fn over_runs(s: &Shared<'_>, deltas: &[Vec<f64>]) -> Vec<ComparedUnit> {
    let top = ablate_common::stats::rank::top_of(s.units.len());
    // Units without a delta rank last, and aren't counted.
    let ranks: Vec<Vec<f64>> = deltas
        .iter()
        .map(|d| midranks(&d.iter().map(|v| if v.is_nan() { f64::INFINITY } else { -v }).collect::<Vec<_>>()))
        .collect();
    let mut out: Vec<ComparedUnit> = (0..s.units.len())
        .filter_map(|i| {
            let has: Vec<usize> = (0..deltas.len()).filter(|&r| !deltas[r][i].is_nan()).collect();
            let own: Vec<f64> = has.iter().map(|&r| ranks[r][i]).collect();
            let (up, down) = has.iter().fold((0u32, 0u32), |n, &r| {
                (n.0 + u32::from(deltas[r][i] > 0.0), n.1 + u32::from(deltas[r][i] < 0.0))
            });
            let parts: Vec<(f64, f64)> =
                has.iter().map(|&r| (deltas[r][i], s.lines[r][i].se.unwrap_or(f64::NAN))).collect();
            let pooled = Pooled::of(&parts);
            (!has.is_empty()).then(|| ComparedUnit {
                task: s.task.clone(),
                method: s.method.clone(),
                unit: s.unit.clone(),
                stream: s.units[i].stream.clone(),
                layer: s.units[i].layer,
                head: s.units[i].head,
                name: s.units[i].name.clone().unwrap_or_default(),
                runs: has.len() as u32,
                mean_rank: own.iter().sum::<f64>() / own.len() as f64,
                best_rank: own.iter().copied().fold(f64::INFINITY, f64::min),
                worst_rank: own.iter().copied().fold(0.0, f64::max),
                sign_agreement: f64::from(up.max(down)) / has.len() as f64,
                in_top: own.iter().filter(|r| **r <= top as f64).count() as u32,
                pooled: pooled.value,
                pooled_se: pooled.se,
                pooled_low: pooled.value - 1.959_963_984_540_054 * pooled.se,
                pooled_high: pooled.value + 1.959_963_984_540_054 * pooled.se,
                i2: pooled.i2,
            })
        })
        .collect();
    out.sort_by(|a, b| a.mean_rank.total_cmp(&b.mean_rank));
    out
}

/// A mean by inverse variance.
struct Pooled {
    value: f64,
    se: f64,
    i2: f64,
}

impl Pooled {
    /// Of (value, standard error). Those without an error have all the weight; NaN where an error isn't known.
    fn of(parts: &[(f64, f64)]) -> Self {
        let sure: Vec<f64> = parts.iter().filter(|p| p.1 == 0.0).map(|p| p.0).collect();
        if !sure.is_empty() {
            let mean = sure.iter().sum::<f64>() / sure.len() as f64;
            return Self { value: mean, se: 0.0, i2: f64::NAN };
        }
        let weight = |p: &(f64, f64)| 1.0 / (p.1 * p.1);
        let all: f64 = parts.iter().map(weight).sum();
        let value = parts.iter().map(|p| weight(p) * p.0).sum::<f64>() / all;
        let q: f64 = parts.iter().map(|p| weight(p) * (p.0 - value).powi(2)).sum();
        let dof = parts.len() as f64 - 1.0;
        let i2 = match q {
            q if q.is_nan() => f64::NAN,
            q if q > dof => (q - dof) / q,
            _ => 0.0,
        };
        Self { value, se: all.powf(-0.5), i2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, task: &str, deltas: &[(f64, f64)]) -> Run {
        let line = |(i, &(delta, se)): (usize, &(f64, f64))| Line {
            task: task.into(),
            method: "mean".into(),
            unit: "head".into(),
            stream: Some("self".into()),
            layer: Some(i as u32 / 4),
            head: Some(i as u32 % 4),
            name: Some(format!("L{}.H{}", i / 4, i % 4)),
            delta: (!delta.is_nan()).then_some(delta),
            se: Some(se),
        };
        Run { name: name.into(), lines: deltas.iter().enumerate().map(line).collect() }
    }

    #[test]
    fn ranks_signs_and_pooled_deltas_are_as_worked_by_hand() {
        let a = run("a", "t", &[(3.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (0.5, 1.0)]);
        let b = run("b", "t", &[(1.0, 2.0), (-2.0, 1.0), (4.0, 1.0), (-0.5, 1.0)]);
        let c = compare(&[a, b], 1).unwrap();
        let of = |name: &str| c.units.iter().find(|u| u.name == name).unwrap();
        let first = of("L0.H0");
        assert_eq!((first.mean_rank, first.best_rank, first.worst_rank, first.in_top), (1.5, 1.0, 2.0, 1));
        assert_eq!((of("L0.H3").sign_agreement, of("L0.H1").sign_agreement), (0.5, 1.0));
        // Weights 1 and 1/4: (3 + 1/4) / (5/4); Q = 0.4² + 1.6²/4 = 0.8 < 1.
        assert!((first.pooled - 2.6).abs() < 1e-12 && (first.pooled_se - 0.8f64.sqrt()).abs() < 1e-12);
        assert_eq!(first.i2, 0.0);
        // 2 and 4: Q = 2, I² = 1/2.
        assert!((of("L0.H2").i2 - 0.5).abs() < 1e-12);
        assert!(Pooled::of(&[(1.0, 1.0), (2.0, f64::NAN)]).i2.is_nan(), "an error isn't known");
        assert!((c.agreement[0].spearman - 0.8).abs() < 1e-12);
        assert_eq!((c.agreement.len(), c.agreement[0].top_k, c.agreement[0].jaccard), (2, 1, 0.0));
        let text = c.text(3);
        assert!(text.contains("run 2: b") && text.contains("0.800 [") && text.contains("0 of 2"), "{text}");
    }

    #[test]
    fn runs_that_cannot_be_compared_are_told_why() {
        let a = run("a", "t", &[(3.0, 1.0), (-1.0, 1.0)]);
        let more = run("b", "t", &[(3.0, 1.0), (-1.0, 1.0), (2.0, 1.0)]);
        let e = compare(&[a.clone(), more], 1).unwrap_err();
        assert!(e.contains("L0.H2 is in b and not in a") && e.contains("one model"), "{e}");
        assert!(compare(std::slice::from_ref(&a), 1).unwrap_err().contains("two or more"));
        let mut other = run("c", "t", &[(1.0, 1.0), (2.0, 1.0)]);
        other.lines.iter_mut().for_each(|l| l.method = "zero".into());
        let e = compare(&[a.clone(), other], 1).unwrap_err();
        assert!(e.contains("share no task") && e.contains("t by zero of heads"), "{e}");
        // Two data sets: one task each.
        let c = compare(&[a, run("d", "u", &[(2.0, 1.0), (f64::NAN, 1.0)])], 1).unwrap();
        assert_eq!((c.units[0].task.as_str(), c.units.len(), c.units[1].runs), ("t / u", 2, 1));
    }
}
