//! Pages in a real Chromium: scripts in tests/browser, run by the virtual environment that
//! deploy/setup/chromium.sh makes.

use crate::program::finish;
use crate::root;
use std::ffi::OsStr;
use std::process::Command;

/// Runs a script of tests/browser and gives what it printed.
///
/// # Panics
/// Where it fails, with what it said, or where set-up hasn't been run.
pub fn drive(script: &str, args: &[&dyn AsRef<OsStr>]) -> String {
    let python = root().join(".deps/browser/bin/python");
    assert!(python.exists(), "{} is missing: run `make browser`", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/browser").join(script)).args(args.iter().map(AsRef::as_ref));
    let out = finish(&mut command);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{script}: {}{}", said(&out.stdout), said(&out.stderr));
    said(&out.stdout)
}
