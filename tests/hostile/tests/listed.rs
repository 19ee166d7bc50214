//! `tests/fuzz` needs a nightly compiler, so that no test builds it. Each of its programs is one line, the same but for a name, and has a
//! target here; and every message of the wire format has a kind and a seed.
#![allow(clippy::unwrap_used, reason = "tests")]

use ablate_hostile::{TARGETS, wire};
use std::collections::BTreeSet;
use std::path::Path;

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn every_target_has_its_fuzzing_program_and_no_program_is_left_over() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
    let folder = tests().join("fuzz/fuzz_targets");
    let mut programs = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = format!(
            "#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| ablate_hostile::run(\"{name}\", bytes));\n"
        );
        assert_eq!(text, line, "{}", path.display());
        programs.insert(name);
    }
    assert_eq!(programs, targets);
    let manifest = std::fs::read_to_string(tests().join("fuzz/Cargo.toml")).unwrap();
    let (_, bins) = manifest.split_once("[[bin]]").unwrap();
    let named = |key: &str| -> BTreeSet<String> {
        let value = |l: &str| l.strip_prefix(key).map(|v| v.trim_matches(['"', ' ', '=']).to_owned());
        bins.lines().filter_map(value).collect()
    };
    assert_eq!(named("name"), targets);
    let paths = targets.iter().map(|t| format!("fuzz_targets/{t}.rs")).collect();
    assert_eq!(named("path"), paths);
}

#[test]
fn every_message_of_the_wire_format_has_a_kind_and_a_seed() {
    let file = tests().parent().unwrap().join("proto/proto/ablate.proto");
    let text = std::fs::read_to_string(file).unwrap();
    let message = |l: &str| l.strip_prefix("message ")?.split([' ', '{']).next().map(str::to_owned);
    let messages: Vec<String> = text.lines().filter_map(message).collect();
    let kinds: Vec<&str> = wire::KINDS.iter().map(|k| k.0).collect();
    assert_eq!(kinds, messages);
    let seeded: BTreeSet<u8> = wire::seeds().iter().map(|s| s[0]).collect();
    let missing: Vec<&str> =
        (0u8..).zip(&kinds).filter(|(i, _)| !seeded.contains(i)).map(|(_, name)| *name).collect();
    assert!(missing.is_empty(), "no seed of {missing:?}");
}
