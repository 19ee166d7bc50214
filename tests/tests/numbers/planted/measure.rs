//! Runs a spec of a planted model and reads its tables.

use ablate_tests::planted::Net;
use ablate_tests::program::{export_json, json, run, said};
use serde_json::Value;
use std::path::Path;

/// The tables of a run, as JSON rows, and its run.json.
pub struct Tables {
    pub heads: Vec<Value>,
    pub pairs: Vec<Value>,
    pub conditional: Vec<Value>,
    pub curve: Vec<Value>,
    pub constants: Vec<Value>,
    pub run: Value,
}

/// Single heads, pairs and greedy with this method.
pub fn measured(net: &Net, task: impl Fn(&Path) -> String, method: &str) -> Tables {
    let sweeps = "[[sweep]]\nkind = \"single\"\n[[sweep]]\nkind = \"pairs\"\n[[sweep]]\nkind = \"greedy\"\nfraction = 0.79\nsplit = \"none\"\n";
    swept(net, task, &format!("[ablation]\n{method}\n{sweeps}"))
}

/// The sections behind the task are `rest`.
pub fn swept(net: &Net, task: impl Fn(&Path) -> String, rest: &str) -> Tables {
    let folder = tempfile::tempdir().unwrap();
    net.save(&folder.path().join("model"));
    let spec = folder.path().join("spec.toml");
    let text = format!(
        "name = \"planted\"\n[model]\nsource = \"model\"\ndtype = \"f64\"\n[[task]]\nname = \"t\"\n{}\n{rest}",
        task(folder.path())
    );
    std::fs::write(&spec, text).unwrap();
    let out = folder.path().join("out");
    said(run(&spec, &out, &[]));
    let tables = folder.path().join("json");
    export_json(&out, &tables);
    let rows = |name: &str| {
        let file = tables.join(name);
        if file.exists() { json(&file).as_array().unwrap().clone() } else { Vec::new() }
    };
    let run = json(&out.join("run.json"));
    let [heads, pairs, conditional, curve, constants] =
        ["heads", "pairs", "conditional", "curve", "constants"].map(|name| rows(&format!("{name}.json")));
    Tables { heads, pairs, conditional, curve, constants, run }
}

impl Tables {
    /// Delta of head (layer, head).
    pub fn delta(&self, (layer, head): (u64, u64)) -> f64 {
        let row = self.heads.iter().find(|r| r["layer"] == layer && r["head"] == head).unwrap();
        row["delta"].as_f64().unwrap()
    }

    /// Interaction and relation of two heads, in forward order.
    pub fn pair(&self, a: (u64, u64), b: (u64, u64)) -> (f64, String) {
        let row = self
            .pairs
            .iter()
            .find(|r| {
                (r["a_layer"] == a.0 && r["a_head"] == a.1) && (r["b_layer"] == b.0 && r["b_head"] == b.1)
            })
            .unwrap();
        (row["interaction"].as_f64().unwrap(), row["relation"].as_str().unwrap().to_owned())
    }

    /// The metric after the greedy order's last step.
    pub fn left(&self) -> f64 {
        let steps = self.curve.iter().filter(|r| r["order"] == "greedy");
        steps.max_by_key(|r| r["step"].as_u64()).unwrap()["value"].as_f64().unwrap()
    }
}
