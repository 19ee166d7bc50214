//! Several coordinators on one store, each a process with a port and a log of its own.

use crate::program::{ablate, signal, worker};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Coordinators and workers; all are killed when it goes.
#[derive(Debug)]
pub struct Coordinators {
    folder: PathBuf,
    store: String,
    ports: Vec<u16>,
    running: Vec<Option<Child>>,
    workers: Vec<Child>,
}

impl Coordinators {
    /// `count` coordinators on `store` with their logs and outputs in `folder`. The first is given time to lead.
    ///
    /// # Panics
    /// Where one can't be started.
    #[must_use]
    pub fn start(folder: &Path, store: &str, count: usize) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        // All at once, so that no two are the same.
        let free: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let ports = free.iter().map(|l| l.local_addr().expect("an address").port()).collect();
        drop(free);
        let mut all = Self {
            folder: folder.to_path_buf(),
            store: store.to_owned(),
            ports,
            running: (0..count).map(|_| None).collect(),
            workers: Vec::new(),
        };
        for seat in 0..count {
            all.serve(seat);
            all.wait_for(seat, if seat == 0 { "serving on" } else { "standing by" });
        }
        all
    }

    /// Starts a coordinator in a seat.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn serve(&mut self, seat: usize) {
        let log = File::options().create(true).append(true).open(self.log_path(seat)).expect("a log");
        let mut command = ablate();
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.ports[seat]), "--output"])
            .arg(self.folder.join(format!("served-{seat}")))
            .env("ABLATE_STORE", &self.store)
            .current_dir(&self.folder)
            .stderr(log);
        self.running[seat] = Some(command.spawn().expect("ablate serve starts"));
    }

    fn log_path(&self, seat: usize) -> PathBuf {
        self.folder.join(format!("serve-{seat}.log"))
    }

    /// What a coordinator has said so far, in all its lives.
    ///
    /// # Panics
    /// Where it was never started.
    #[must_use]
    pub fn log(&self, seat: usize) -> String {
        std::fs::read_to_string(self.log_path(seat)).expect("a log")
    }

    /// Waits until a coordinator has said something.
    ///
    /// # Panics
    /// Where it doesn't within half a minute.
    pub fn wait_for(&self, seat: usize, words: &str) {
        let began = Instant::now();
        while !self.log(seat).contains(words) {
            assert!(began.elapsed() < Duration::from_secs(30), "no {words:?} in: {}", self.log(seat));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// URL of a coordinator.
    #[must_use]
    pub fn url(&self, seat: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[seat])
    }

    /// All URLs, as `--coordinator` takes them.
    #[must_use]
    pub fn urls(&self) -> String {
        (0..self.ports.len()).map(|s| self.url(s)).collect::<Vec<_>>().join(",")
    }

    /// The seat with a URL.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn seat(&self, url: &str) -> usize {
        (0..self.ports.len())
            .find(|&s| self.url(s) == url)
            .unwrap_or_else(|| panic!("{url} is no coordinator"))
    }

    /// Process of a coordinator.
    ///
    /// # Panics
    /// Where it doesn't run.
    #[must_use]
    pub fn pid(&self, seat: usize) -> u32 {
        self.running[seat].as_ref().expect("it runs").id()
    }

    /// kill −9 of a coordinator.
    ///
    /// # Panics
    /// Where it doesn't run.
    pub fn kill(&mut self, seat: usize) {
        let mut child = self.running[seat].take().expect("it runs");
        signal(child.id(), "KILL");
        let _ = child.wait();
    }

    /// Ends a coordinator with a signal, and gives its exit code.
    ///
    /// # Panics
    /// Where it doesn't run.
    pub fn end(&mut self, seat: usize, name: &str) -> Option<i32> {
        let mut child = self.running[seat].take().expect("it runs");
        signal(child.id(), name);
        child.wait().ok().and_then(|s| s.code())
    }

    /// Starts a worker that knows all coordinators. Its log has a line for each acknowledgement.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn add_worker(&mut self) {
        let path = self.worker_log(self.workers.len());
        let log = File::options().create(true).append(true).open(path).expect("a log");
        let mut command = worker(&self.urls());
        command.env("ABLATE_LOG", "info,ablate_worker_client=debug").stderr(log);
        self.workers.push(command.spawn().expect("ablate-worker starts"));
    }

    fn worker_log(&self, n: usize) -> PathBuf {
        self.folder.join(format!("worker-{n}.log"))
    }

    /// (sweep, round, chunk) of every acknowledgement that a worker has heard.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<(i64, i64, i64)> {
        let text: String = (0..self.workers.len())
            .filter_map(|n| std::fs::read_to_string(self.worker_log(n)).ok())
            .collect();
        let field = |line: &str, name: &str| -> Option<i64> {
            let rest = line.split_once(&format!(" {name}="))?.1;
            rest.split(' ').next()?.trim().parse().ok()
        };
        let lines = text.lines().filter(|l| l.contains("acknowledged"));
        lines.filter_map(|l| Some((field(l, "sweep")?, field(l, "round")?, field(l, "chunk")?))).collect()
    }

    /// A client's command that knows all coordinators.
    #[must_use]
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = ablate();
        command.args(args).args(["--coordinator", &self.urls()]).current_dir(&self.folder);
        command
    }
}

impl Drop for Coordinators {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten().chain(&mut self.workers) {
            // One that is stopped ends by this signal too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
