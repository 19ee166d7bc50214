use super::*;
use crate::head::HeadMap;
use crate::model::{Details, ModelInfo};
use crate::plan::PlannedTask;
use crate::spec::{ModelSpec, Spec};
use crate::task::{Example, Scored};

#[test]
fn sizes_are_read_as_people_write_them() {
    assert_eq!(parse("2GiB"), Ok(2 << 30));
    assert_eq!(parse("1.5 MB"), Ok(1_500_000));
    assert_eq!(parse("4096"), Ok(4096));
    for bad in ["", "GiB", "2 parsecs", "-1", "0", "1e99", "99999999999TiB"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

/// Two layers of two heads; a value of the residual stream, of z, keys and values has 1,024 numbers.
fn model() -> ModelInfo {
    ModelInfo {
        arch: "llama".into(),
        title: "t".into(),
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(2, 2),
        layers: 2,
        d_model: 1024,
        n_heads: 2,
        n_kv_heads: 2,
        head_dim: 512,
        d_ff: 64,
        vocab: 100,
        context: 1 << 20,
        norm_eps: 1e-5,
        rope_theta: Some(1e4),
        tied: true,
        details: Details::default(),
    }
}

/// Two sequences of as many tokens, of which `scored` are scored, and their pair; the first selects.
fn task(kind: TaskKind, tokens: usize, scored: u32) -> Prepared {
    let score = |position| Scored { position, target: 1, foil: 0 };
    let item = Item { tokens: vec![1; tokens], scored: (0..scored).map(score).collect(), ..Item::default() };
    let examples = vec![Example { a: 0, b: 1, gold: 0.0, cluster: 0, half: Some(0) }];
    Prepared { kind, items: vec![item.clone(), item], item_half: vec![0, 1], examples, probe: None }
}

/// A plan in f32: single heads of everything and of the selecting half in chunks of `chunk`, and gradients.
fn plan(task: &Prepared, metric: Metric, chunk: u32) -> Plan {
    let len = task.items[0].tokens.len() as u32;
    let batch = |item: u32| Batch { items: vec![item], len };
    let sweep = |kind, scope| PlannedSweep { kind, ablation: 0, tasks: vec![0], units: 0, scope, chunk };
    Plan {
        engine: crate::ENGINE_VERSION,
        spec: Spec {
            name: "t".into(),
            seed: 0,
            model: ModelSpec { source: String::new(), dtype: Dtype::F32, sha256: None },
            tasks: Vec::new(),
            ablations: Vec::new(),
            sweeps: Vec::new(),
        },
        model: model(),
        tasks: vec![PlannedTask {
            name: "t".into(),
            kind: task.kind,
            metric,
            prepared: String::new(),
            items: 2,
            examples: 1,
            all: vec![batch(0), batch(1)],
            select: vec![batch(0)],
        }],
        ablations: Vec::new(),
        units: Vec::new(),
        references: Vec::new(),
        sweeps: vec![
            sweep(SweepKind::Single, Scope::All),
            sweep(SweepKind::Single, Scope::Select),
            sweep(SweepKind::Gradient { greedy: None }, Scope::All),
        ],
    }
}

#[test]
fn chunks_of_long_sequences_have_fewer_subsets_and_one_at_least() {
    // A token of a row has six values of 1,024 numbers, 24 KiB.
    for (tokens, wanted) in [(512, 64), (1365, 64), (1366, 63), (16 << 10, 5), (128 << 10, 1)] {
        let data = [task(TaskKind::LanguageModeling, tokens, 1)];
        let mut plan = plan(&data[0], Metric::Loss, 64);
        let chunks: Vec<u32> = (0..3).map(|s| chunk_within(&plan, &data, s)).collect();
        // All heads' gradients come from one pass, however many are in a chunk.
        assert_eq!(chunks, [wanted, wanted, 64], "{tokens}");
        plan.sweeps[0].chunk = wanted;
        let need = of_sweep(&plan, &data, 0, SLICE_TOKENS);
        assert_eq!(need.rows, u64::from(wanted) * tokens as u64 * 24 * 1024);
        assert!(need.rows <= CHUNK_BYTES || wanted == 1, "{need:?}");
        assert_eq!(chunk_within(&plan, &data, 0), wanted);
    }
}

#[test]
fn what_is_held_of_all_batches_counts_among_what_a_lane_cannot_do_without() {
    // Final states of 7 scored positions of each sequence, for everything and for the half.
    let data = [task(TaskKind::LanguageModeling, 50, 7)];
    let of = |metric| of_plan(&plan(&data[0], metric, 8), &data, SLICE_TOKENS);
    let (loss, kl) = (of(Metric::Loss), of(Metric::Kl));
    assert_eq!((loss.finals, kl.finals), (0, 3 * 7 * 1024 * 4));
    assert_eq!(kl.passes() - loss.passes(), kl.finals);
    // Embeddings of both texts by every subset, in f64.
    let data = [task(TaskKind::Similarity, 50, 0)];
    let of = |chunk| of_plan(&plan(&data[0], Metric::Pearson, chunk), &data, SLICE_TOKENS);
    let (eight, nine) = (of(8), of(9));
    assert_eq!((eight.embeddings, nine.embeddings), (8 * 2 * 1024 * 8, 9 * 2 * 1024 * 8));
    let row = nine.rows - eight.rows;
    assert_eq!(row, 50 * 24 * 1024);
    assert_eq!(nine.passes() - eight.passes(), row + 2 * 1024 * 8 + nine.slice - eight.slice);
}
