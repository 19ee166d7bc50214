//! A coordinator that is started with options of a test's choice, and what callers do with it.

use crate::program::{ablate, said, signal};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A coordinator with its store, log and outputs in a folder; killed when it goes.
#[derive(Debug)]
pub struct Service {
    folder: PathBuf,
    port: u16,
    scheme: &'static str,
    child: Child,
}

/// `ablate serve` on a port, with its store and outputs in `folder`.
#[must_use]
pub fn serve(folder: &Path, listen: &str, more: &[&str]) -> Command {
    let mut command = ablate();
    command
        .args(["serve", "--listen", listen, "--store", &store(folder), "--output"])
        .arg(folder.join("served"))
        .args(more)
        .current_dir(folder);
    command
}

/// The store in a folder.
#[must_use]
pub fn store(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("serve.db").display())
}

/// A token made by `ablate token create`.
///
/// # Panics
/// Where that fails.
#[must_use]
pub fn token(folder: &Path, role: &str, name: &str) -> String {
    let mut command = ablate();
    command.args(["token", "create", "--role", role, "--name", name, "--store", &store(folder)]);
    said(command).trim().to_owned()
}

impl Service {
    /// Starts `ablate serve` with `more` options on a free port of `host`, and waits until it serves.
    ///
    /// # Panics
    /// Where it doesn't.
    #[must_use]
    pub fn start(folder: &Path, host: &str, more: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let log = File::options().create(true).append(true).open(folder.join("serve.log")).expect("a log");
        let mut command = serve(folder, &format!("{host}:{}", free.port()), more);
        let child = command.env("ABLATE_LOG", "trace").stderr(log).spawn().expect("ablate serve starts");
        let scheme = if more.contains(&"--tls-cert") { "https" } else { "http" };
        let service = Self { folder: folder.to_path_buf(), port: free.port(), scheme, child };
        service.wait_for("serving on");
        service
    }

    /// Its URL on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has said.
    ///
    /// # Panics
    /// Where it has no log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("serve.log")).expect("a log")).into_owned()
    }

    /// Waits until it has said something.
    ///
    /// # Panics
    /// Where it doesn't within half a minute.
    pub fn wait_for(&self, words: &str) {
        let began = Instant::now();
        while !self.log().contains(words) {
            assert!(began.elapsed() < Duration::from_secs(30), "no {words:?} in: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A client's command.
    #[must_use]
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = ablate();
        command.args(args).args(["--coordinator", &self.url()]).current_dir(&self.folder);
        command
    }

    /// A client's command that shows a token.
    #[must_use]
    pub fn with_token(&self, token: &str, args: &[&str]) -> Command {
        let mut command = self.client(args);
        command.env("ABLATE_TOKEN", token);
        command
    }

    /// Ends it as an operator does.
    ///
    /// # Panics
    /// Where it doesn't end.
    pub fn end(mut self) {
        signal(self.child.id(), "TERM");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
