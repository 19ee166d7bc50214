//! Whether a model's headers are checked tensor by tensor.
#![expect(clippy::unwrap_used, reason = "tests")]

use ablate_common::model::inspect_headers;
use std::collections::BTreeMap;
use std::path::Path;

/// Renames each tensor of a model's file, and turns each oblong one, in place: every one must be missed.
///
/// `unused` begin the names of tensors that a model's file may hold and its forward pass never reads.
///
/// # Panics
/// Where a model is still taken for whole.
pub fn every_tensor_is_checked(path: &Path, unused: &[&str]) {
    let file = path.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + size].to_vec()).unwrap();
    let refuses = |changed: &str, name: &str, why: &str| {
        assert_eq!(changed.len(), header.len());
        std::fs::write(&file, [&bytes[..8], changed.as_bytes(), &bytes[8 + size..]].concat()).unwrap();
        let said = inspect_headers(path).map(|_| ()).unwrap_err().to_string();
        // Without the tensor that tells them apart, names are taken for those without a prefix.
        let tail = name.rsplit('.').take(2).collect::<Vec<_>>();
        assert!(said.contains(&format!("{}.{} {why}", tail[1], tail[0])), "{name}: {said}");
    };
    let tensors: BTreeMap<String, serde_json::Value> = serde_json::from_str(&header).unwrap();
    for (name, t) in
        tensors.iter().filter(|t| t.0 != "__metadata__" && !unused.iter().any(|u| t.0.starts_with(u)))
    {
        let quoted = format!("\"{name}\"");
        let renamed = format!("\"{}~\"", &name[..name.len() - 1]);
        refuses(&header.replace(&quoted, &renamed), name, "is missing");
        let shape: Vec<u64> = t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        if let [a, b] = shape[..]
            && a != b
        {
            let (at, written) = (header.find(&quoted).unwrap(), format!("[{a},{b}]"));
            let turned = header[at..].replacen(&written, &format!("[{b},{a}]"), 1);
            refuses(&(header[..at].to_owned() + &turned), name, &format!("has shape [{b}, {a}]"));
        }
    }
    std::fs::write(&file, &bytes).unwrap();
}
