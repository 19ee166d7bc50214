//! Who may call a coordinator, and how it is reached: tokens, certificates, limits and folders, with real processes and sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod limits;
mod tls;
mod tokens;

use std::process::{Child, Command, ExitStatus, Stdio};

/// A program that runs beside the test; killed when it goes.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command, log: &std::path::Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let (out, err) = (log.try_clone().unwrap(), log);
        Self(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap())
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of all files below a folder.
fn files(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    out
}
