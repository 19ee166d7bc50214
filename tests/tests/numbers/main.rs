//! Numbers against references that Ablate's authors didn't write, and against planted truth. One program, because
//! tests of one program run side by side, while programs wait for each other; `cargo test --test numbers parity::`
//! chooses a module.

mod architectures;
mod gradients;
mod images;
mod kinds;
mod language;
mod observed;
mod optimal;
mod parity;
mod plans;
mod planted;
mod probe;
mod reactions;
mod real_gradients;
mod real_observed;
mod seq2seq;
mod sharing;
mod statistics;
mod tasks;
mod units;

/// A module that records a comparison with a reference, and isn't among those that `make parity` runs, would be missing in its table.
#[test]
fn make_parity_runs_every_module_that_compares_with_a_reference() {
    let makefile = std::fs::read_to_string(ablate_tests::root().join("Makefile")).unwrap();
    let listed = makefile.lines().find_map(|line| line.strip_prefix("PARITY := ")).unwrap();
    let mut listed: Vec<&str> = listed.split_whitespace().collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(ablate_tests::root().join("tests/tests/numbers")).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("main.rs") {
            continue;
        }
        let files: Vec<std::path::PathBuf> = if path.is_dir() {
            std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect()
        } else {
            vec![path.clone()]
        };
        let proves = |file: &std::path::PathBuf| {
            std::fs::read_to_string(file).unwrap().contains("use ablate_tests::proof::")
        };
        if files.iter().any(proves) {
            found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, found);
}
