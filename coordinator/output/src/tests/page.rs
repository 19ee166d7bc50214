//! What the report says of numbers that are as it may be.

use super::*;

/// The report of an analysis.
fn page(r: &Results, a: &Analysis) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    report_analysed(r, a, &path).unwrap();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn what_is_retained_is_told_with_its_interval_and_without_a_promise() {
    let r = experiment(2, 4, 30, true);
    let mut a = analyse(&r);
    // Of the first task less is left than with no head; of the second next to nothing, and nobody knows how sure that is.
    for (g, (retained, within)) in a.groups.iter_mut().zip([(-0.2, Some((-0.31, -0.08))), (0.03, None)]) {
        for p in g.curves[0].points.iter_mut().filter(|p| p.removed == 7) {
            p.retained = Some(retained);
            (p.retained_low, p.retained_high) = (within.map(|w| w.0), within.map(|w| w.1));
        }
    }
    let page = page(&r, &a);
    for words in [
        "<b>Without 79 % of the heads, −20.0 % [−31.0 %, −8.0 %] is retained.</b> Greedy pruning takes out 7 of 8 heads",
        "<dd>−20.0 %</dd><dt>retained without 79 % of the heads, 95 % interval −31.0 % to −8.0 %</dt>",
        "Without 7 of 8 heads (79 %), the greedy order retains −20.0 % [−31.0 %, −8.0 %]; random orders retain",
        "<b>Without 79 % of the heads, 3.0 % is retained.</b> Greedy pruning for ioi takes out 7 of 8 heads",
        "<dd>3.0 %</dd><dt>retained without 79 % of the heads</dt>",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("of the heads can go"));
}
