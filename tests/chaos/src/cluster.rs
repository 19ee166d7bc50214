//! A coordinator and two workers as processes on three hosts, over TLS.

use crate::net::{Network, address};
use ablate_load::service::said;
use anyhow::{Context, bail};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Host of the coordinator; the workers' are 1 and 2.
pub const COORDINATOR: usize = 0;
/// Workers.
pub const WORKERS: usize = 2;
/// Seconds of a lease: short, so that faults outlast it.
const LEASE_S: u64 = 3;
/// After this the coordinator gives a lease away: a quarter more, and its look at the clock.
pub const LEASE_OVER: Duration = Duration::from_millis(LEASE_S * 1250 + 250);
/// After this a worker knows by its pings that its connection is dead (`worker/client/src/link.rs`).
pub const LINK_DEAD: Duration = Duration::from_secs(10);

/// The cluster. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Its network.
    pub net: Network,
    folder: PathBuf,
    bin: PathBuf,
    store: String,
    worker_token: String,
    submit_token: String,
    /// By host; none where it isn't running.
    running: [Option<Child>; 1 + WORKERS],
}

impl Cluster {
    /// Hosts, certificates and tokens, and everything started. Logs and state lie in `folder`.
    ///
    /// # Errors
    /// Where one of these fails.
    pub fn start(folder: &Path, bin: &Path, store: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let own = rcgen::generate_simple_self_signed(vec![address(COORDINATOR)])?;
        std::fs::write(folder.join("cert.pem"), own.cert.pem())?;
        std::fs::write(folder.join("key.pem"), own.signing_key.serialize_pem())?;
        let mut cluster = Self {
            net: Network::new(1 + WORKERS)?,
            folder: folder.to_path_buf(),
            bin: bin.to_path_buf(),
            store: store.to_owned(),
            worker_token: String::new(),
            submit_token: String::new(),
            running: [const { None }; 1 + WORKERS],
        };
        cluster.worker_token = cluster.token("worker")?;
        cluster.submit_token = cluster.token("submit")?;
        for host in 0..=WORKERS {
            cluster.launch(host)?;
        }
        let end = Instant::now() + Duration::from_mins(1);
        while let Err(e) = cluster.client(&["list"]) {
            if Instant::now() > end {
                bail!("the coordinator doesn't answer: {e}; see {}", cluster.log(COORDINATOR).display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(cluster)
    }

    fn token(&self, role: &str) -> anyhow::Result<String> {
        let mut command = Command::new(self.bin.join("ablate"));
        command.args(["token", "create", "--role", role, "--name", role]).env("ABLATE_STORE", &self.store);
        Ok(said(command)?.trim().to_owned())
    }

    /// A host's log.
    #[must_use]
    pub fn log(&self, host: usize) -> PathBuf {
        self.folder.join(if host == COORDINATOR { "serve.log".into() } else { format!("worker-{host}.log") })
    }

    fn url() -> String {
        format!("https://{}:7650", address(COORDINATOR))
    }

    /// Starts a host's process where it isn't running.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn launch(&mut self, host: usize) -> anyhow::Result<()> {
        if self.alive(host) {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log(host))?;
        let mut command = if host == COORDINATOR {
            let mut command = self.net.on(host, &self.bin.join("ablate"));
            command
                .args(["serve", "--listen", &format!("{}:7650", address(host)), "--tls-cert"])
                .arg(self.folder.join("cert.pem"))
                .arg("--tls-key")
                .arg(self.folder.join("key.pem"))
                .args(["--lease", &LEASE_S.to_string(), "--allow", "/", "--output"])
                .arg(self.folder.join("served"))
                .env("ABLATE_STORE", &self.store);
            command
        } else {
            let mut command = self.net.on(host, &self.bin.join("ablate-worker"));
            command
                .args(["--coordinator", &Self::url(), "--device", "cpu", "--threads", "1", "--ca"])
                .arg(self.folder.join("cert.pem"))
                .env("ABLATE_TOKEN", &self.worker_token)
                // Every connection that is lost, and why.
                .env("ABLATE_LOG", "info,ablate_worker_client=debug")
                .env("OMP_NUM_THREADS", "1");
            command
        };
        let child = command.current_dir(&self.folder).stdin(Stdio::null()).stderr(log).spawn()?;
        self.running[host] = Some(child);
        Ok(())
    }

    fn alive(&mut self, host: usize) -> bool {
        self.running[host].as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Starts what ended by itself: as systemd or a cluster's engine does.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn supervise(&mut self, except: Option<usize>) -> anyhow::Result<()> {
        (0..=WORKERS).filter(|&h| Some(h) != except).try_for_each(|h| self.launch(h))
    }

    /// Sends a signal to a host's process.
    ///
    /// # Errors
    /// Where there is no `kill`.
    pub fn signal(&mut self, host: usize, name: &str) -> anyhow::Result<()> {
        if self.alive(host)
            && let Some(child) = &self.running[host]
        {
            // `ip netns exec` has become the program.
            let _ = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status()?;
        }
        Ok(())
    }

    /// Kills a host's process as the machine's death does.
    ///
    /// # Errors
    /// Where it can't be waited for.
    pub fn kill(&mut self, host: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.running[host].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Tells a host's process to end, and waits until it has, or kills it after 20 s.
    ///
    /// # Errors
    /// Where it can't be waited for.
    pub fn end(&mut self, host: usize) -> anyhow::Result<()> {
        self.signal(host, "TERM")?;
        let until = Instant::now() + Duration::from_secs(20);
        while self.alive(host) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill(host)
    }

    /// What a client on the coordinator's host is told.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn client(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.net.on(COORDINATOR, &self.bin.join("ablate"));
        command
            .args(args)
            .env("ABLATE_COORDINATOR", Self::url())
            .env("ABLATE_CA", self.folder.join("cert.pem"))
            .env("ABLATE_TOKEN", &self.submit_token);
        said(command)
    }

    /// How often the logs so far say something.
    ///
    /// # Errors
    /// Where they can't be read.
    pub fn logged(&self, what: &str) -> anyhow::Result<usize> {
        let mut times = 0;
        for host in 0..=WORKERS {
            let log = std::fs::read(self.log(host))?;
            times += String::from_utf8_lossy(&log).matches(what).count();
        }
        Ok(times)
    }

    /// Status of the only experiment.
    ///
    /// # Errors
    /// Where the coordinator doesn't answer, or has none.
    pub fn status(&self) -> anyhow::Result<Value> {
        serde_json::from_str(self.client(&["status", "--json"])?.trim()).context("an odd status")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in 0..=WORKERS {
            // A stopped process dies of SIGKILL as well.
            let _ = self.kill(host);
        }
    }
}
