//! Names what differs between two plans, so that a refusal says more than "differs".

use ablate_common::plan::Plan;
use serde_json::Value;

/// Differences of `new` from `old`, a line each, the spec's first; at most `most`.
pub fn differences(old: &Plan, new: &Plan, most: usize) -> Vec<String> {
    let mut out = Vec::new();
    let strip = |plan: &Plan| {
        let mut plan = plan.clone();
        plan.spec.name.clear();
        plan.spec.model.source.clear();
        plan.model.title.clear();
        plan.spec.tasks.iter_mut().for_each(|t| t.data = None);
        plan
    };
    let (a, b) = (strip(old), strip(new));
    if a.engine != b.engine {
        out.push(format!("engine: {} there, {} here", a.engine, b.engine));
    }
    let json = |v: serde_json::Result<Value>| v.unwrap_or(Value::Null);
    walk("spec", &json(serde_json::to_value(&a.spec)), &json(serde_json::to_value(&b.spec)), &mut out);
    walk("model", &json(serde_json::to_value(&a.model)), &json(serde_json::to_value(&b.model)), &mut out);
    for (x, y) in a.tasks.iter().zip(&b.tasks) {
        if x.prepared != y.prepared {
            out.push(format!("data of task {}: its examples differ", x.name));
        }
    }
    if out.is_empty() {
        out.push("the recorded plan (batches or chunks)".to_owned());
    }
    if out.len() > most {
        let more = out.len() - most;
        out.truncate(most);
        out.push(format!("and {more} more"));
    }
    out
}

fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for k in keys {
                walk(
                    &format!("{path}.{k}"),
                    x.get(k).unwrap_or(&Value::Null),
                    y.get(k).unwrap_or(&Value::Null),
                    out,
                );
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (p, q)) in x.iter().zip(y).enumerate() {
                walk(&format!("{path}[{i}]"), p, q, out);
            }
        }
        _ if a == b => {}
        _ => out.push(format!("{path}: {} there, {} here", short(a), short(b))),
    }
}

fn short(v: &Value) -> String {
    let s = v.to_string();
    if s.chars().count() > 60 { s.chars().take(57).chain("...".chars()).collect() } else { s }
}
