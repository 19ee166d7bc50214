//! The least work that gives some scores, and the machine's peak for it.

use ablate_common::head::HeadIx;
use ablate_common::plan::Plan;
use ablate_common::task::Prepared;
use ablate_worker::engine::model::{Feed, Model};
use ablate_worker::engine::trie::{Cut, Intervention, Trie};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Operations by the product that they belong to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Least {
    qkv: f64,
    out: f64,
    up: f64,
    down: f64,
    logits: f64,
    /// Scores and weighted sums of attention: taken at the peak of the largest product of a layer.
    attention: f64,
}

impl Least {
    /// All operations.
    pub fn flops(&self) -> f64 {
        self.qkv + self.out + self.up + self.down + self.logits + self.attention
    }

    /// Seconds that they take at the peak of each shape.
    pub fn seconds(&self, peaks: &Peaks) -> f64 {
        let of = |flops: f64, peak: &Peak| if flops > 0.0 { flops / peak.per_s } else { 0.0 };
        of(self.qkv, &peaks.qkv)
            + of(self.out, &peaks.out)
            + of(self.up + self.attention, &peaks.up)
            + of(self.down, &peaks.down)
            + of(self.logits, &peaks.logits)
    }
}

/// Best of a product by itself, with the rows (and, of logits, tokens) that it was reached with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    per_s: f64,
    rows: i64,
    columns: i64,
}

/// Of each of a model's products.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    qkv: Peak,
    out: Peak,
    up: Peak,
    down: Peak,
    logits: Peak,
}

/// Rows that products are tried with; a CPU's engine works on 1024 (512 for logits, and 1024 tokens of the vocabulary).
const CPU_ROWS: &[i64] = &[256, 512, 1024, 2048, 4096];
const GPU_ROWS: &[i64] = &[1024, 4096, 8192, 16384, 32768];
/// Tokens of the vocabulary that logits are tried with; 0: all.
const CPU_TOKENS: &[i64] = &[1024, 4096, 0];
const GPU_TOKENS: &[i64] = &[16384, 0];
/// Results of a product are no larger: half a GB, and on a GPU 2 GB in bf16, where 4096 rows of Llama 3's whole vocabulary are 1 GB.
const CPU_MOST: i64 = 1 << 27;
const GPU_MOST: i64 = 1 << 30;
const TRIES: usize = 12;

impl Peaks {
    /// Measures the products by themselves, each the best of all numbers of rows and of several tries.
    pub fn of(model: &Model) -> Self {
        let gpu = model.device != Device::Cpu;
        let (rows, most) = if gpu { (GPU_ROWS, GPU_MOST) } else { (CPU_ROWS, CPU_MOST) };
        let best = |w: &Tensor, columns: &[i64]| {
            let each = rows.iter().flat_map(|&r| columns.iter().map(move |&c| (r, c)));
            let tried = each.filter_map(|(rows, columns)| {
                let columns = if columns == 0 { w.size()[0] } else { columns.min(w.size()[0]) };
                (rows * columns <= most).then(|| Peak {
                    per_s: product(&w.narrow(0, 0, columns), rows, model.kind),
                    rows,
                    columns,
                })
            });
            // Shares of what was never measured would be no numbers.
            tried.max_by(|a, b| a.per_s.total_cmp(&b.per_s)).expect("no number of rows fits a product")
        };
        let block = &model.blocks[0];
        let feed =
            |of: fn(&Feed) -> &Tensor| block.feed.as_ref().map_or_else(Peak::default, |f| best(of(f), &[0]));
        Self {
            qkv: best(&block.qkv, &[0]),
            out: best(&block.wo, &[0]),
            up: feed(|f| &f.up),
            down: feed(|f| &f.down),
            logits: model
                .unembed
                .as_ref()
                .map_or_else(Peak::default, |w| best(w, if gpu { GPU_TOKENS } else { CPU_TOKENS })),
        }
    }

    /// As JSON: what was reached, in GFLOP/s, and with how many rows.
    pub fn told(&self) -> Value {
        let each = [
            ("qkv", self.qkv),
            ("out", self.out),
            ("up", self.up),
            ("down", self.down),
            ("logits", self.logits),
        ];
        let told = |p: Peak| json!({"gflops": p.per_s / 1e9, "rows": p.rows, "columns": p.columns});
        let each = each.into_iter().filter(|(_, p)| p.per_s > 0.0);
        Value::Object(each.map(|(name, p)| (name.to_owned(), told(p))).collect::<Map<_, _>>())
    }
}

/// Operations a second of `x [rows, d]` times `w [n, d]` transposed.
fn product(w: &Tensor, rows: i64, kind: Kind) -> f64 {
    let (n, d) = (w.size()[0], w.size()[1]);
    let x = Tensor::randn([rows, d], (Kind::Float, w.device())).to_kind(kind);
    let wait = || {
        if let Device::Cuda(index) = w.device() {
            tch::Cuda::synchronize(index as i64);
        }
    };
    let once = || {
        let began = Instant::now();
        let _ = x.linear(w, None::<&Tensor>);
        wait();
        began.elapsed().as_secs_f64()
    };
    wait();
    2.0 * rows as f64 * (n * d) as f64 / (0..TRIES).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Least work for subsets beyond a base set, whose states are there: what two subsets share is counted once, a
/// removed head not at all, the last layer behind its attention and the logits only where they are scored.
pub fn least(plan: &Plan, prepared: &Prepared, base: &[HeadIx], subsets: &[Vec<HeadIx>]) -> Least {
    let m = &plan.model;
    let heads: Vec<Intervention> = subsets
        .iter()
        .map(|s| {
            let mut layers = BTreeMap::<usize, Vec<Cut>>::new();
            for head in s.iter().filter(|h| !base.contains(h)).filter_map(|&h| plan.heads().head(h)) {
                layers.entry(head.layer as usize).or_default().push(Cut { head: head.head, keep: 0.0 });
            }
            Intervention { stages: layers.into_iter().collect() }
        })
        .collect();
    let trie = Trie::new(&heads);
    let gone: Vec<Vec<u32>> = (0..m.layers)
        .map(|l| {
            base.iter()
                .filter_map(|&h| plan.heads().head(h))
                .filter(|h| h.layer == l)
                .map(|h| h.head)
                .collect()
        })
        .collect();
    let (mut tokens, mut squares, mut scored) = (0.0, 0.0, 0.0);
    for item in &prepared.items {
        let n = item.tokens.len() as f64;
        tokens += n;
        squares += n * n;
        scored += if item.scored.is_empty() { n } else { item.positions() as f64 };
    }
    let (d, dh, ff) = (f64::from(m.d_model), f64::from(m.head_dim), f64::from(m.d_ff));
    let group = m.n_heads / m.n_kv_heads;
    let mut sum = Least::default();
    let attention = |sum: &mut Least, layer: usize, at: f64| {
        let kept: Vec<u32> = (0..m.n_heads).filter(|h| !gone[layer].contains(h)).collect();
        let mut kv: Vec<u32> = kept.iter().map(|h| h / group).collect();
        kv.dedup();
        let q = kept.len() as f64 * dh;
        sum.qkv += 2.0 * d * (q + 2.0 * kv.len() as f64 * dh) * tokens;
        sum.attention += 4.0 * q * squares / if m.causal() { 2.0 } else { 1.0 };
        sum.out += 2.0 * d * q * at;
    };
    for node in &trie.nodes {
        let layers = m.layers as usize;
        // Rows in which nothing ends are needed up to the attention that their last child changes.
        let (end, only_attention) = if node.ends.is_empty() {
            (node.last_child.unwrap_or(node.stage), true)
        } else {
            (layers, false)
        };
        for layer in node.stage..end {
            let at = if layer + 1 == layers { scored } else { tokens };
            if layer == node.stage {
                sum.out += 2.0 * d * dh * node.cuts.len() as f64 * at;
            } else {
                attention(&mut sum, layer, at);
            }
            sum.up += 2.0 * (f64::from(m.mlp_matrices()) - 1.0) * d * ff * at;
            sum.down += 2.0 * d * ff * at;
        }
        if only_attention && end > node.stage {
            attention(&mut sum, end, if end + 1 == layers { scored } else { tokens });
        }
        if !node.ends.is_empty() && prepared.kind.by_token() {
            sum.logits += 2.0 * d * f64::from(m.vocab) * scored;
        }
    }
    sum
}
