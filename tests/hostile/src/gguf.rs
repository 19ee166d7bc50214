//! GGUF headers, and all that is made of one before a weight is read.

use ablate_common::model::{self, gguf};
use std::sync::atomic::{AtomicU64, Ordering};

static FILES: AtomicU64 = AtomicU64::new(0);

/// Reads a file's header, then inspects the file as a model.
///
/// # Panics
/// Where the temporary folder can't be written.
#[must_use]
pub fn run(bytes: &[u8]) -> bool {
    let len = bytes.len() as u64;
    let Ok(header) = gguf::read_header(bytes, len) else { return false };
    for t in &header.tensors {
        if let Ok(dtype) = gguf::tensor_type(t.type_id) {
            let _ = dtype.bytes(&t.shape);
        }
    }
    let shared = std::path::Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
    let name =
        format!("ablate-hostile-{}-{}.gguf", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    let inspected = model::inspect_headers(&path);
    std::fs::remove_file(&path).expect("it was there");
    if let Ok(model) = &inspected {
        for t in model.weights.tensors.values() {
            assert!(t.offset.checked_add(t.len).is_some_and(|end| end <= len), "a tensor past the end");
        }
    }
    inspected.is_ok()
}

fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A Llama of one layer with two heads.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let int = |v: u32| [4u32.to_le_bytes(), v.to_le_bytes()].concat();
    let float = |v: f32| [6u32.to_le_bytes(), v.to_le_bytes()].concat();
    let word = |v: &str| [&8u32.to_le_bytes()[..], &text(v)].concat();
    let words = |all: &[&str]| {
        let head = [&9u32.to_le_bytes()[..], &8u32.to_le_bytes(), &(all.len() as u64).to_le_bytes()].concat();
        all.iter().fold(head, |out, w| [out, text(w)].concat())
    };
    let ints = |all: &[i32]| {
        let head = [&9u32.to_le_bytes()[..], &5u32.to_le_bytes(), &(all.len() as u64).to_le_bytes()].concat();
        all.iter().fold(head, |out, i| [out, i.to_le_bytes().to_vec()].concat())
    };
    let keys = [
        ("general.architecture", word("llama")),
        ("llama.embedding_length", int(4)),
        ("llama.attention.head_count", int(2)),
        ("llama.block_count", int(1)),
        ("llama.feed_forward_length", int(8)),
        ("llama.context_length", int(16)),
        ("llama.attention.layer_norm_rms_epsilon", float(1e-5)),
        ("llama.rope.freq_base", float(10_000.0)),
        ("tokenizer.ggml.model", word("gpt2")),
        ("tokenizer.ggml.tokens", words(&["a", "b", "ab"])),
        ("tokenizer.ggml.token_type", ints(&[1, 1, 1])),
        ("tokenizer.ggml.merges", words(&["a b"])),
        ("tokenizer.ggml.bos_token_id", int(0)),
    ];
    // Innermost dimension first.
    let tensors: [(&str, &[u64]); 11] = [
        ("token_embd.weight", &[4, 3]),
        ("output_norm.weight", &[4]),
        ("blk.0.attn_norm.weight", &[4]),
        ("blk.0.attn_q.weight", &[4, 4]),
        ("blk.0.attn_k.weight", &[4, 4]),
        ("blk.0.attn_v.weight", &[4, 4]),
        ("blk.0.attn_output.weight", &[4, 4]),
        ("blk.0.ffn_norm.weight", &[4]),
        ("blk.0.ffn_gate.weight", &[4, 8]),
        ("blk.0.ffn_up.weight", &[4, 8]),
        ("blk.0.ffn_down.weight", &[8, 4]),
    ];
    let mut out = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        out.extend([text(key), value].concat());
    }
    let mut offset = 0u64;
    for (name, shape) in tensors {
        out.extend([text(name), (shape.len() as u32).to_le_bytes().to_vec()].concat());
        shape.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend([&0u32.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        offset += (4 * shape.iter().product::<u64>()).next_multiple_of(32);
    }
    let start = out.len().next_multiple_of(32);
    out.resize(start + offset as usize, 0);
    vec![out]
}
