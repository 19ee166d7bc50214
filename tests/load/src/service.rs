//! A coordinator as a process, and what it costs.

use anyhow::{Context, bail, ensure};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `ablate serve` on a port of loopback. It is killed when this is dropped.
#[derive(Debug)]
pub struct Service {
    program: PathBuf,
    folder: PathBuf,
    store: String,
    port: u16,
    running: Option<Child>,
}

impl Service {
    /// A service with its log and output in `folder`, not yet started.
    ///
    /// # Errors
    /// Where `ablate` isn't built or no port is free.
    pub fn new(folder: &Path, store: &str) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            program: ablate()?,
            folder: folder.to_path_buf(),
            store: store.to_owned(),
            port,
            running: None,
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it and doesn't wait.
    ///
    /// # Errors
    /// Where the process can't be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join("serve.log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--output"])
            .arg(self.folder.join("served"))
            .env("ABLATE_STORE", &self.store)
            .stdin(Stdio::null())
            .stderr(log);
        self.running = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// Where it ended, or doesn't answer within a minute.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_mins(1);
        while self.client(&["list"]).is_err() {
            if let Some(status) = self.running.as_mut().and_then(|c| c.try_wait().ok()).flatten() {
                bail!("ablate serve ended ({status}): see {}", self.folder.join("serve.log").display());
            }
            ensure!(
                Instant::now() < end,
                "ablate serve doesn't answer: see {}",
                self.folder.join("serve.log").display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Kills it as a crash does.
    ///
    /// # Errors
    /// Where it isn't running.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.running.take().context("it isn't running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What a client command prints.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn client(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("ABLATE_COORDINATOR", self.url());
        said(command)
    }

    /// Processor time so far, of all its threads.
    ///
    /// # Errors
    /// Where it isn't running.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // Fields 14 and 15 in ticks, of which Linux counts 100 a second; the name before them may hold spaces.
        let after = stat.rsplit_once(')').context("an odd stat")?.1;
        let ticks: u64 =
            after.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(10 * ticks))
    }

    /// The most memory it has held so far, in MB.
    ///
    /// # Errors
    /// Where it isn't running.
    pub fn peak_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kb: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kb / 1024.0)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.running.as_ref().context("it isn't running")?.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The program, beside this one or in the folder above (tests lie in `deps`).
///
/// # Errors
/// Where it isn't built.
pub fn ablate() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("ablate"))
        .find(|p| p.is_file())
        .context("ablate isn't built: cargo build --release --workspace --bins")
}

/// What a command prints.
///
/// # Errors
/// Where it fails: with what it said.
pub fn said(mut command: Command) -> anyhow::Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}
