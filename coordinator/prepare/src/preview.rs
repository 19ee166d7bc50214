//! Examples as the model sees them, for people.

use crate::reader::Reader;
use crate::tokenizer::Text;
use crate::{Error, PreparedExperiment};
use ablate_common::model::{self, ModelInfo};
use ablate_common::task::{Example, Item, Prepared, TaskKind};

/// Most tokens of an item that are shown.
const SHOWN: usize = 96;

/// The first `k` examples of each task: tokens separated by `|`, scored positions in `[…]` (there the
/// next token is predicted), with target and foil, or all choices, where there are any; of images size and label. Where states of a donor
/// take their place, the donor of the example's first sequence.
///
/// # Errors
/// Where the model's tokenizer or image processor can't be read.
pub fn preview(experiment: &PreparedExperiment, k: usize) -> Result<Vec<String>, Error> {
    let reader = Reader::of(&model::inspect_headers(&experiment.model_path)?, &experiment.model_path)?;
    let mut out = Vec::new();
    let plan = &experiment.plan;
    for (at, (task, p)) in plan.tasks.iter().zip(&experiment.prepared).enumerate() {
        for (i, e) in p.examples.iter().take(k).enumerate() {
            out.push(format!("{} {i}: {}", task.name, example(p, e, &reader, &plan.model)));
            for ablation in &plan.ablations {
                let Some(source) = ablation.sources.get(at) else { continue };
                let Some(&donor) = source.donors.get(e.a as usize) else { continue };
                let from = source.reference.map_or(at, |r| plan.tasks.len() + r as usize);
                let item = experiment.prepared.get(from).and_then(|p| p.items.get(donor as usize));
                if let Some(item) = item {
                    out.push(format!(
                        "{} {i}, donor ({}): {}",
                        task.name,
                        ablation.title(),
                        shown(item, &reader)
                    ));
                }
            }
        }
    }
    Ok(out)
}

fn example(p: &Prepared, e: &Example, reader: &Reader, info: &ModelInfo) -> String {
    let (a, b) = (&p.items[e.a as usize], &p.items[e.b as usize]);
    if p.kind == TaskKind::Classification {
        let names = p.probe.as_ref().map_or(&info.details.labels, |probe| &probe.classes);
        let name = names.get(e.gold as usize).map_or("", String::as_str);
        return format!("label {name:?}: {}", shown(a, reader));
    }
    let Reader::Text(text) = reader else { return shown(a, reader) };
    match p.kind {
        TaskKind::Similarity => format!("score {}: {}  ~  {}", e.gold, tokens(a, text), tokens(b, text)),
        TaskKind::Ioi | TaskKind::LogitDifference => {
            let ends: Vec<String> = a
                .scored
                .iter()
                .map(|s| format!("target {:?} over foil {:?}", text.show(s.target), text.show(s.foil)))
                .collect();
            format!("{}  {}", tokens(a, text), ends.join(", "))
        }
        TaskKind::MaskedLm => {
            let hidden: Vec<String> = a.scored.iter().map(|s| text.show(s.target)).collect();
            format!("{}  masked: {}", tokens(a, text), hidden.join("|"))
        }
        TaskKind::GreaterThan => {
            let of = |sign| {
                let tokens = a.scored.iter().filter(|s| s.foil == sign).map(|s| text.show(s.target));
                tokens.collect::<Vec<_>>().join(" ")
            };
            format!("{}  greater: {}; not greater: {}", tokens(a, text), of(1), of(0))
        }
        TaskKind::NextTokenChoice => {
            let choices: Vec<String> = (0usize..)
                .zip(p.items_of(e))
                .map(|(n, i)| {
                    let right = if n as f64 == e.gold { " (right)" } else { "" };
                    format!("{}{right}", tokens(&p.items[i as usize], text))
                })
                .collect();
            choices.join("  /  ")
        }
        TaskKind::LanguageModeling | TaskKind::Induction | TaskKind::Classification => tokens(a, text),
        TaskKind::Seq2seq => {
            let shared = info.details.seq2seq.as_ref().is_none_or(|s| s.shared);
            // Only where both sides share a vocabulary does the tokenizer know the target's tokens.
            let target: Vec<String> = a
                .scored
                .iter()
                .take(SHOWN)
                .map(|s| if shared { text.show(s.target) } else { s.target.to_string() })
                .collect();
            format!("{}  target: {}", tokens(a, text), target.join("|"))
        }
    }
}

/// A sequence: its tokens, or its image's size and how bright it is, channel by channel, of 255.
fn shown(item: &Item, reader: &Reader) -> String {
    match (reader, &item.image) {
        (Reader::Text(text), _) => tokens(item, text),
        (Reader::Images(_), None) => String::new(),
        (Reader::Images(_), Some(image)) => {
            let each = image.levels.chunks_exact(image.levels.len() / image.channels as usize);
            let mean = |plane: &[u8]| {
                let sum: u64 = plane.iter().map(|&l| u64::from(l)).sum();
                format!("{:.0}", sum as f64 / plane.len() as f64)
            };
            format!(
                "image of {} x {} pixels (height x width), {} patches, mean level {}",
                image.height,
                image.width,
                item.tokens.len() - 1,
                each.map(mean).collect::<Vec<_>>().join(" ")
            )
        }
    }
}

fn tokens(item: &Item, text: &Text) -> String {
    let scored = |at: usize| {
        item.decoder.is_empty() && item.scored.binary_search_by_key(&(at as u32), |s| s.position).is_ok()
    };
    let mut shown: Vec<String> = item
        .tokens
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(at, &t)| if scored(at) { format!("[{}]", text.show(t)) } else { text.show(t) })
        .collect();
    if item.tokens.len() > SHOWN {
        shown.push(format!("… {} more", item.tokens.len() - SHOWN));
    }
    shown.join("|")
}
