use super::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;

/// A directory with a tiny BERT (2 layers, 2 heads, width 4), its tensors changed by `edit`.
fn bert(edit: impl Fn(&mut Vec<(String, Vec<usize>)>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("config.json"),
        r#"{"model_type":"bert","hidden_act":"gelu","hidden_size":4,"num_attention_heads":2,"num_hidden_layers":2,
            "intermediate_size":8,"vocab_size":11,"max_position_embeddings":16,"type_vocab_size":2,"layer_norm_eps":1e-12}"#,
    )
    .unwrap();
    let info = ModelInfo {
        arch: "bert".into(),
        title: String::new(),
        weights_sha256: String::new(),
        heads: HeadMap::single_stream(2, 2),
        layers: 2,
        d_model: 4,
        n_heads: 2,
        n_kv_heads: 2,
        head_dim: 2,
        d_ff: 8,
        vocab: 11,
        context: 16,
        norm_eps: 1e-12,
        rope_theta: None,
        tied: true,
        details: Details::default(),
    };
    let mut tensors: Vec<(String, Vec<usize>)> = need::bert(&info, 2, "")
        .into_iter()
        .map(|(n, s)| (n, s.iter().map(|&d| d as usize).collect()))
        .collect();
    edit(&mut tensors);
    let zeros = vec![0u8; 4096];
    let views: HashMap<String, TensorView<'_>> = tensors
        .iter()
        .map(|(n, s)| {
            (
                n.clone(),
                TensorView::new(Dtype::F32, s.clone(), &zeros[..4 * s.iter().product::<usize>()]).unwrap(),
            )
        })
        .collect();
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
    dir
}

#[test]
fn a_bert_directory_is_read_and_hashed() {
    let dir = bert(|_| ());
    let got = inspect(dir.path()).unwrap();
    assert_eq!((got.info.layers, got.info.heads.len(), got.info.norm_eps), (2, 4, 1e-12));
    assert_eq!(got.info.weights_sha256, weights_sha256(dir.path()).unwrap());
    assert_eq!(got.info.weights_sha256.len(), 64);
    let t = &got.weights.tensors["encoder.layer.1.output.dense.weight"];
    assert_eq!((t.shape.as_slice(), t.len), (&[4u64, 8][..], 128));
}

#[test]
fn wrong_files_are_refused_with_their_path() {
    let says = |dir: &Path, what: &str| {
        let e = inspect(dir).unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
        assert!(e.contains(&dir.display().to_string()), "{e}");
    };
    let dir = bert(|t| t.retain(|t| t.0 != "encoder.layer.1.attention.self.key.bias"));
    says(dir.path(), "tensor encoder.layer.1.attention.self.key.bias is missing");
    let dir = bert(|t| t[0].1 = vec![12, 4]);
    says(dir.path(), "has shape [12, 4]");
    let dir = bert(|_| ());
    let weights = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 9]).unwrap();
    says(dir.path(), "truncated");
    std::fs::write(&weights, &bytes[..5]).unwrap();
    says(dir.path(), "truncated");
    std::fs::remove_file(&weights).unwrap();
    says(dir.path(), "no model.safetensors");
    std::fs::write(dir.path().join("pytorch_model.bin"), b"x").unwrap();
    says(dir.path(), "convert");
    std::fs::write(&weights, &bytes).unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type":"mamba"}"#).unwrap();
    says(dir.path(), "\"mamba\" isn't supported (supported: albert, bert,");
    assert!(inspect(&dir.path().join("none")).is_err());
    assert!(inspect(&weights).unwrap_err().to_string().contains("neither"));
}

#[test]
fn shards_are_found_through_their_index() {
    let dir = bert(|_| ());
    let got = inspect(dir.path()).unwrap();
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("a.safetensors")).unwrap();
    let map: HashMap<&String, &str> = got.weights.tensors.keys().map(|k| (k, "a.safetensors")).collect();
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(inspect(dir.path()).unwrap().info.weights_sha256, got.info.weights_sha256);
    std::fs::write(&index, r#"{"weight_map":{"x":"../a.safetensors"}}"#).unwrap();
    assert!(inspect(dir.path()).unwrap_err().to_string().contains("same folder"));
    std::fs::write(&index, r#"{"weight_map":{"x":"a.safetensors"}}"#).unwrap();
    assert!(inspect(dir.path()).unwrap_err().to_string().contains("tensor x isn't in it"));
}

#[test]
fn settings_that_change_the_forward_pass_are_refused_by_name() {
    let dir = bert(|_| ());
    let heads = r#""hidden_size":4,"num_attention_heads":2,"num_hidden_layers":2,"intermediate_size":8,
        "vocab_size":11,"max_position_embeddings":16,"rms_norm_eps":1e-6,"layer_norm_eps":1e-6"#;
    let gpt2 =
        r#""n_embd":4,"n_head":2,"n_layer":2,"n_positions":16,"vocab_size":11,"layer_norm_epsilon":1e-5"#;
    let others = r#""ffn_dim":8,"rotary_pct":1.0"#;
    let says = |arch: &str, more: &str, what: &str| {
        let config = format!(r#"{{"model_type":"{arch}",{heads},{gpt2},{others}{more}}}"#);
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let e = inspect_headers(dir.path()).unwrap_err().to_string();
        assert!(e.contains(what), "{arch} {more}: {e}");
    };
    for arch in DECODERS {
        says(arch, "", "is missing: the file is incomplete");
        says(arch, r#","is_causal":false"#, "is_causal = false");
    }
    for arch in DECODERS.into_iter().chain(ENCODERS) {
        says(arch, r#","quantization_config":{"bits":4}"#, "quantization_config = ");
        says(arch, r#","add_cross_attention":true"#, "add_cross_attention = true");
    }
    for arch in ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt_neox", "phi3"] {
        says(
            arch,
            r#","rope_scaling":{"rope_type":"yarn","factor":2.0}"#,
            "rope_scaling of type Some(\"yarn\")",
        );
        says(arch, r#","rope_parameters":{"full_attention":{}}"#, "full_attention = {} in rope_parameters");
        says(arch, r#","rope_scaling":{"type":"linear"}"#, "rope_scaling has no factor");
    }
    for (arch, more, what) in [
        ("llama", r#","hidden_act":"quick_gelu""#, "hidden_act = \"quick_gelu\""),
        ("llama", r#","partial_rotary_factor":0.5"#, "partial_rotary_factor = 0.5"),
        ("llama", r#","layer_types":["full_attention"]"#, "layer_types = "),
        ("phi3", r#","rope_scaling":{"type":"linear","factor":2}"#, "isn't supported in a phi3"),
        (
            "qwen2",
            r#","layer_types":["chunked_attention","full_attention"]"#,
            "\"chunked_attention\" in layer_types",
        ),
        ("qwen3", r#","layer_types":["sliding_attention","full_attention"]"#, "there is no sliding_window"),
        ("gemma2", r#","use_bidirectional_attention":true"#, "use_bidirectional_attention = true"),
        ("gpt_neox", r#","rotary_pct":0.5,"partial_rotary_factor":1.0"#, "partial_rotary_factor = 1"),
        ("gpt_neox", r#","rotary_pct":0.25"#, "rotating Some(0)"),
        ("gpt2", r#","scale_attn_by_inverse_layer_idx":true"#, "scale_attn_by_inverse_layer_idx = true"),
        ("gpt2", r#","activation_function":"tanh""#, "activation_function = \"tanh\""),
        ("opt", r#","layer_norm_elementwise_affine":false"#, "layer_norm_elementwise_affine = false"),
        ("opt", r#","_remove_final_layer_norm":true"#, "_remove_final_layer_norm = true"),
        ("bert", r#","is_decoder":true"#, "is_decoder = true"),
        ("bert", r#","position_embedding_type":"relative_key""#, "position_embedding_type = "),
        ("roberta", r#","pad_token_id":15"#, "leave none behind a pad_token_id of 15"),
        ("albert", r#","inner_group_num":2"#, "inner_group_num = 2"),
        ("albert", r#","num_hidden_groups":3"#, "num_hidden_groups = 3"),
    ] {
        says(arch, more, what);
    }
}

#[test]
fn what_a_model_of_images_says_of_them_is_understood_or_refused_by_name() {
    let dir = bert(|_| ());
    let error = |more: serde_json::Value| {
        let mut config = serde_json::json!({"model_type": "vit", "hidden_size": 4, "num_attention_heads": 2, "layer_norm_eps": 1e-6,
            "num_hidden_layers": 2, "intermediate_size": 8, "image_size": [8, 9], "patch_size": 3, "num_channels": 1});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        inspect_headers(dir.path()).unwrap_err().to_string()
    };
    for (more, what) in [
        (serde_json::json!({}), "tensor embeddings.cls_token is missing"),
        (serde_json::json!({"num_channels": 4}), "num_channels = 4 isn't supported"),
        (
            serde_json::json!({"image_size": [8]}),
            "image_size should be a whole number above 0, or a list of two",
        ),
        (serde_json::json!({"patch_size": 0}), "patch_size should be a whole number above 0"),
        (serde_json::json!({"patch_size": [3, 10]}), "a patch of 3 x 10 doesn't fit into an image of 8 x 9"),
        (serde_json::json!({"image_size": 4_000_000_000u32}), "can't be right (at most 16384)"),
        (serde_json::json!({"head_dim": 2}), "head_dim = 2 isn't supported"),
        (serde_json::json!({"hidden_act": "quick_gelu"}), "hidden_act = \"quick_gelu\" isn't supported"),
        (serde_json::json!({"qkv_bias": 1}), "qkv_bias should be true or false"),
        (serde_json::json!({"quantization_config": {"bits": 4}}), "quantization_config = "),
        (serde_json::json!({"num_attention_heads": 3}), "3 heads don't divide a hidden_size of 4"),
    ] {
        let said = error(more.clone());
        assert!(said.contains(what), "{more}: {said}");
    }
    let shape = ImageShape { channels: 1, height: 8, width: 9, patch_height: 3, patch_width: 2 };
    assert_eq!((shape.patches(), shape.places(), shape.values()), ((2, 4), 9, 72));
}

#[test]
fn a_model_reads_images_of_its_size_and_another_text_only() {
    use crate::pixels::{Pixels, Scaling};
    use crate::task::{Item, Prepared, Probe, TaskKind};
    let reads = |info: &ModelInfo, items: Vec<Item>, probed: Vec<Item>| {
        let probe = Probe { classes: Vec::new(), items: probed, labels: Vec::new(), batches: Vec::new() };
        let (item_half, examples) = (vec![0; items.len()], Vec::new());
        let kind = TaskKind::Classification;
        Prepared { kind, items, item_half, examples, probe: Some(probe) }.readable_by(info)
    };
    let mut text = ModelInfo::blank("bert", String::new());
    let mut vision = ModelInfo::blank("vit", String::new());
    (text.vocab, vision.vocab) = (5, 9);
    vision.details.image =
        Some(ImageShape { channels: 1, height: 2, width: 2, patch_height: 1, patch_width: 2 });
    let words = || Item { tokens: vec![4, 2], ..Item::default() };
    let picture = |width: u32, places: u32| {
        let levels = vec![7; 2 * width as usize];
        let pixels = Pixels { channels: 1, height: 2, width, levels, scaling: Scaling::default() };
        Item { tokens: (0..places).collect(), image: Some(Box::new(pixels)), ..Item::default() }
    };
    assert_eq!(reads(&text, vec![words()], vec![words()]), Ok(()));
    assert_eq!(reads(&vision, vec![picture(2, 3)], vec![picture(2, 3)]), Ok(()));
    let stranger = Item { tokens: vec![4, 5], ..Item::default() };
    assert!(reads(&text, vec![stranger], Vec::new()).is_err_and(|e| e.contains("token")));
    for (info, item) in
        [(&text, picture(2, 3)), (&vision, words()), (&vision, picture(3, 3)), (&vision, picture(2, 4))]
    {
        assert!(reads(info, vec![item.clone()], Vec::new()).is_err());
        assert!(reads(info, Vec::new(), vec![item]).is_err());
    }
}

#[test]
fn a_plain_model_is_recorded_as_before_and_an_unknown_detail_is_refused() {
    let plain = serde_json::to_value(inspect(bert(|_| ()).path()).unwrap().info).unwrap();
    assert!(plain.get("details").is_none());
    let mut later = plain.clone();
    later["details"] = serde_json::json!({ "logit_softcap": 30.0, "windows": [null, 4] });
    let info: ModelInfo = serde_json::from_value(later.clone()).unwrap();
    assert_eq!((info.details.window(1), info.details.window(7)), (Some(4), None));
    assert_eq!(serde_json::to_value(&info).unwrap(), later);
    later["details"] = serde_json::json!({ "from_the_future": 1 });
    assert!(serde_json::from_value::<ModelInfo>(later).is_err());
}
