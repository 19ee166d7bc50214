//! The targets of `make load`.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_load::targets::TARGETS;
use serde_json::{Value, json};

/// The figures of a run that meets all targets.
fn good() -> Value {
    json!({
        "chunks_per_s": 5218.0, "lease_p99_ms": 18.4, "rss_mb": 157.0, "plan_s": 0.022, "recover_s": 0.44,
        "lone_cpu_us_per_chunk": 81.0,
    })
}

fn missed(row: &Value) -> Vec<&'static str> {
    TARGETS.iter().filter(|t| !t.met(row)).map(|t| t.figure).collect()
}

#[test]
fn each_target_is_missed_by_its_own_figure_only() {
    assert_eq!(missed(&good()), [""; 0]);
    let bad = [
        ("chunks_per_s", 4999.0),
        ("lease_p99_ms", 20.0),
        ("rss_mb", 300.0),
        ("plan_s", 1.0),
        ("recover_s", 2.0),
        ("lone_cpu_us_per_chunk", 100.0),
    ];
    assert_eq!(bad.len(), TARGETS.len());
    for (figure, value) in bad {
        let mut row = good();
        row[figure] = value.into();
        assert_eq!(missed(&row), [figure]);
        row.as_object_mut().unwrap().remove(figure);
        assert_eq!(missed(&row), [figure], "without it");
    }
}

#[test]
fn a_target_is_told_with_its_figure_and_its_bound() {
    let mut row = good();
    row["lease_p99_ms"] = json!(218.0);
    let told: Vec<String> = TARGETS.iter().map(|t| t.told(&row)).collect();
    assert!(told[0].starts_with("met") && told[0].ends_with("at least 5000"), "{told:?}");
    assert!(told[1].starts_with("missed") && told[1].contains("218.000"), "{told:?}");
}
