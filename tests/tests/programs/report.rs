//! The report of a real run, opened in a real browser.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::browser::drive;
use ablate_tests::program::{ablate, run, said, small_spec};
use ablate_tests::{root, smollm2};
use std::path::{Path, PathBuf};

/// The spec of the repository for one experiment on four tasks, made small, with everything measured, estimated and observed that isn't
/// about pairs: in a minute or two.
fn spec(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(root().join("deploy/demo/four-tasks.toml")).unwrap();
    let models = format!("{:?}", root().join("models")).trim_matches('"').to_owned();
    let small: String = text
        .lines()
        .map(|line| match line.split(" = ").next() {
            Some("max_tokens") => "max_tokens = 12\n".to_owned(),
            Some("examples") => "examples = 6\n".to_owned(),
            // A name that a page has to escape.
            Some("name") if line.contains("induction") => "name = \"repeat <b>&\"\n".to_owned(),
            _ => format!("{}\n", line.replace("../../models", &models)),
        })
        .collect();
    let path = folder.join("spec.toml");
    let all = ["gradient", "attention"].map(|kind| format!("[[sweep]]\nkind = {kind:?}\n"));
    let one = ["repair", "shift"].map(|kind| format!("[[sweep]]\nkind = {kind:?}\ntasks = [\"ioi\"]\n"));
    let more = all.into_iter().chain(one).collect::<String>();
    std::fs::write(&path, small + &more).unwrap();
    path
}

fn driven(report: &Path, name: &str, kinds: &[&str]) {
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&report, &name];
    args.extend(kinds.iter().map(|k| k as &dyn AsRef<std::ffi::OsStr>));
    print!("{}", drive("report.py", &args));
}

#[test]
fn a_report_of_smollm2_on_four_tasks_is_read_in_chromium() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    said(run(&spec(folder.path()), &out, &[]));
    let kinds = [
        "heads",
        "top",
        "gradients",
        "agreement",
        "repair",
        "shift",
        "portrait",
        "attention",
        "polysemanticity",
        "reliability",
    ];
    driven(&out.join("report.html"), "smollm2", &kinds);
    // Written again it is the same, but for what the run itself says.
    let before = std::fs::read(out.join("figures/heads-ioi-mean.png")).unwrap();
    std::fs::remove_dir_all(out.join("figures")).unwrap();
    let mut again = ablate();
    again.arg("report").arg(&out);
    said(again);
    assert!(std::fs::read(out.join("figures/heads-ioi-mean.png")).unwrap() == before);
}

/// Sets of SmolLM2's heads whose interactions are large: whole layers, of which some stand in for others.
#[test]
fn pairs_groups_triples_and_curves_of_smollm2_are_read_in_chromium() {
    let folder = tempfile::tempdir().unwrap();
    let (out, path) = (folder.path().join("out"), folder.path().join("spec.toml"));
    let set = |layer: usize| {
        let heads: Vec<String> = (0..9).map(|h| format!("\"L{layer}.H{h}\"")).collect();
        format!("layer{layer} = [{}]\n", heads.join(", "))
    };
    let sets: String = [2, 8, 10, 12, 14, 16, 18, 20].map(set).concat();
    let text = format!(
        "name = \"smollm2-sets\"\n[model]\nsource = {:?}\n\
         [[task]]\nname = \"ioi\"\nkind = \"ioi\"\nexamples = 12\n\
         [ablation]\nmethod = \"mean\"\nunit = \"set\"\n[ablation.sets]\n{sets}\
         [[sweep]]\nkind = \"pairs\"\nthird_order = 5\n\
         [[sweep]]\nkind = \"greedy\"\nfraction = 1.0\n",
        smollm2()
    );
    std::fs::write(&path, text).unwrap();
    said(run(&path, &out, &[]));
    let kinds = ["pairs", "graph", "groups", "triples", "top-pairs", "curve", "top", "selected"];
    driven(&out.join("report.html"), "smollm2-sets", &kinds);
}

#[test]
fn pairs_and_pruning_are_read_in_chromium() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let path = small_spec(folder.path());
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("kind = \"pairs\"\n", "kind = \"pairs\"\nthird_order = 10\n").replace(
        "fraction = 0.2\n",
        "fraction = 0.2\norders = [\"greedy\", \"importance\", \"gradient\", \"rollout\", \"random\", \"matched\"]\n",
    );
    std::fs::write(&path, text).unwrap();
    said(run(&path, &out, &[]));
    driven(&out.join("report.html"), "minilm", &["pairs-lee-mean", "top-pairs", "curve", "heads"]);
}
