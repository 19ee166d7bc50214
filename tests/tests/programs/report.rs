//! The report of a real run, opened in a real browser.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_tests::browser::drive;
use ablate_tests::program::{ablate, run, said, small_spec};
use ablate_tests::smollm2;
use std::path::Path;

/// SmolLM2 on two short tasks: every head measured, estimated and observed, in about a minute.
fn spec(folder: &Path) -> std::path::PathBuf {
    let sets: String = (0..6)
        .map(|k| format!("set{k} = [\"L{}.H{}\", \"L{}.H{}\"]\n", 3 * k, k, 3 * k + 1, k + 1))
        .collect();
    let path = folder.join("spec.toml");
    let text = format!(
        "name = \"smollm2-report\"\n[model]\nsource = {:?}\n\
         [[task]]\nname = \"ioi\"\nkind = \"ioi\"\nexamples = 8\n\
         [[task]]\nname = \"repeat <b>&\"\nkind = \"induction\"\nexamples = 6\nmax_tokens = 12\n\
         [[ablation]]\nmethod = \"mean\"\n\
         [[ablation]]\nmethod = \"zero\"\nunit = \"set\"\n[ablation.sets]\n{sets}\
         [[sweep]]\nkind = \"single\"\n\
         [[sweep]]\nkind = \"gradient\"\n\
         [[sweep]]\nkind = \"attention\"\n\
         [[sweep]]\nkind = \"repair\"\n\
         [[sweep]]\nkind = \"shift\"\n",
        smollm2()
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_report_of_smollm2_is_read_in_chromium() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    said(run(&spec(folder.path()), &out, &[]));
    let kinds = ["heads", "top", "gradients", "agreement", "repair", "shift", "portrait", "polysemanticity"];
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
    let report = out.join("report.html");
    args.extend([&report as &dyn AsRef<std::ffi::OsStr>, &"smollm2"]);
    args.extend(kinds.iter().map(|k| k as &dyn AsRef<std::ffi::OsStr>));
    print!("{}", drive("report.py", &args));
    // Written again it is the same, but for what the run itself says.
    let before = std::fs::read(out.join("figures/heads-ioi-mean.png")).unwrap();
    std::fs::remove_dir_all(out.join("figures")).unwrap();
    let mut again = ablate();
    again.arg("report").arg(&out);
    said(again);
    assert!(std::fs::read(out.join("figures/heads-ioi-mean.png")).unwrap() == before);
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
    let report = out.join("report.html");
    let kinds = ["pairs-lee-mean", "top-pairs", "curve", "heads"];
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&report, &"minilm"];
    args.extend(kinds.iter().map(|k| k as &dyn AsRef<std::ffi::OsStr>));
    print!("{}", drive("report.py", &args));
}
