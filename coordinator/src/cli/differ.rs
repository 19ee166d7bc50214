//! Names what differs between two plans, so that a refusal says more than "differs".

use ablate_common::plan::Plan;
use serde_json::Value;

/// Differences of `new` from `old`, a line each, at most `most`. What doesn't belong to an experiment's
/// identity (its name, where files lie) is no difference.
pub fn differences(old: &Plan, new: &Plan, most: usize) -> Vec<String> {
    let mut out = Vec::new();
    let (a, b) = (old.without_places(), new.without_places());
    let json = |v: serde_json::Result<Value>| v.unwrap_or(Value::Null);
    walk("spec", &json(serde_json::to_value(&a.spec)), &json(serde_json::to_value(&b.spec)), &mut out);
    if a.engine != b.engine {
        out.push(differ("engine version", a.engine, b.engine));
    }
    walk("model", &json(serde_json::to_value(&a.model)), &json(serde_json::to_value(&b.model)), &mut out);
    for (x, y) in a.tasks.iter().zip(&b.tasks) {
        if x.prepared != y.prepared {
            let start = |hash: &str| hash.chars().take(16).collect::<String>();
            out.push(differ(
                &format!("data of task {:?} (blake3)", x.name),
                start(&x.prepared),
                start(&y.prepared),
            ));
        }
    }
    if a.references != b.references {
        out.push("data of a reference set".to_owned());
    }
    if out.is_empty() {
        out.push("recorded plan: batches or chunk sizes (another version of ablate planned it)".to_owned());
    }
    if out.len() > most {
        let more = out.len() - most;
        out.truncate(most);
        out.push(format!("and {more} more"));
    }
    out
}

fn differ(what: &str, old: impl std::fmt::Display, new: impl std::fmt::Display) -> String {
    format!("{what}: {old} in the folder, {new} now")
}

fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for k in keys {
                let of = |m: &serde_json::Map<String, Value>| m.get(k).cloned().unwrap_or(Value::Null);
                walk(&format!("{path}.{k}"), &of(x), &of(y), out);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (p, q)) in x.iter().zip(y).enumerate() {
                walk(&format!("{path}[{i}]"), p, q, out);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.iter().chain(y).any(Value::is_object) => {
            out.push(differ(&format!("number of {path}"), x.len(), y.len()));
        }
        _ if a == b => {}
        _ => out.push(differ(path, short(a), short(b))),
    }
}

fn short(v: &Value) -> String {
    let s = if v.is_null() { "nothing".to_owned() } else { v.to_string() };
    if s.chars().count() > 72 { s.chars().take(69).chain("...".chars()).collect() } else { s }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use ablate_common::head::HeadMap;
    use serde_json::json;

    fn named(a: &Value, b: &Value) -> Vec<String> {
        let mut out = Vec::new();
        walk("spec", a, b, &mut out);
        out
    }

    #[test]
    fn fields_are_named_with_both_values() {
        let old = json!({"seed": 0, "tasks": [{"max_tokens": 8, "sha256": null}], "sweeps": [{}, {}]});
        assert!(named(&old, &old).is_empty());
        let new = json!({"seed": 1, "tasks": [{"max_tokens": 7, "sha256": "ab"}], "sweeps": [{}]});
        assert_eq!(
            named(&old, &new),
            [
                "spec.seed: 0 in the folder, 1 now",
                "number of spec.sweeps: 2 in the folder, 1 now",
                "spec.tasks[0].max_tokens: 8 in the folder, 7 now",
                "spec.tasks[0].sha256: nothing in the folder, \"ab\" now",
            ]
        );
    }

    fn plan() -> Plan {
        let text = "name = \"x\"\n[model]\nsource = \"m\"\n[[task]]\nname = \"ioi\"\nkind = \"ioi\"\nexamples = 4\n[ablation]\nmethod = \"zero\"\n[[sweep]]\nkind = \"single\"\n";
        let spec = ablate_common::spec::parse(text, "x.toml").unwrap();
        serde_json::from_value(json!({
            "engine": 1, "spec": spec, "ablations": [{"method": "zero", "unit": "head"}], "units": [], "sweeps": [],
            "model": {"arch": "llama", "title": "m", "weights_sha256": "aa", "heads": HeadMap::single_stream(1, 2), "layers": 1, "n_heads": 2, "n_kv_heads": 2,
                "head_dim": 4, "d_model": 8, "d_ff": 16, "vocab": 10, "context": 32, "rope_theta": 1e4, "norm_eps": 1e-5, "tied": true},
            "tasks": [{"name": "ioi", "kind": "ioi", "metric": "logit_diff", "prepared": "aa", "items": 1, "examples": 1, "all": [], "select": []}],
        }))
        .unwrap()
    }

    #[test]
    fn plans_differ_by_spec_engine_model_and_data_but_not_by_names_and_places() {
        let old = plan();
        let mut new = old.clone();
        new.spec.name = "y".into();
        new.spec.model.source = "elsewhere".into();
        new.model.title = "elsewhere".into();
        assert_eq!(new.identity(), old.identity());
        new.spec.seed = 3;
        new.engine += 1;
        new.model.weights_sha256 = "bb".into();
        new.tasks[0].prepared = "bb".into();
        let named = differences(&old, &new, 9);
        assert_eq!(named.len(), 4, "{named:?}");
        for (line, word) in named.iter().zip([
            "spec.seed: 0",
            "engine version",
            "model.weights_sha256",
            "data of task \"ioi\"",
        ]) {
            assert!(line.contains(word), "{line}");
        }
        assert_eq!(differences(&old, &new, 2).last().unwrap(), "and 2 more");
    }
}
