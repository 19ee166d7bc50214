//! Hosts on one machine: network namespaces, each with a link (veth) to a switch (a bridge) in a namespace of its own.
//! Links are cut by taking the switch's end down, and slowed by a token bucket at both ends.

use anyhow::{Context, ensure};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Networks of this process so far: their names differ.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A switch and its hosts. Everything in them must have ended before this is dropped, which takes it all down.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hosts: usize,
}

impl Network {
    /// A switch with `hosts` hosts.
    ///
    /// # Errors
    /// Where the process may not make network namespaces.
    pub fn new(hosts: usize) -> anyhow::Result<Self> {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let net = Self { prefix: format!("ab{}-{number}", std::process::id()), hosts };
        let switch = net.switch();
        ip(&["netns", "add", &switch]).context(
            "chaos needs hosts of its own, which are network namespaces: run it as root (in a container, with CAP_NET_ADMIN and \
             CAP_SYS_ADMIN), with iproute2 installed",
        )?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for host in 0..hosts {
            let name = net.host(host);
            ip(&["netns", "add", &name])?;
            let end = format!("h{host}");
            ip(&[
                "-n", &switch, "link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["-n", &switch, "link", "set", &end, "master", "br0", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", address(host)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// A command that runs on a host.
    #[must_use]
    pub fn on(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host)]).arg(program);
        command
    }

    /// Nothing passes to or from a host.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn cut(&self, host: usize) -> anyhow::Result<()> {
        ip(&["-n", &self.switch(), "link", "set", &format!("h{host}"), "down"])
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn mend(&self, host: usize) -> anyhow::Result<()> {
        ip(&["-n", &self.switch(), "link", "set", &format!("h{host}"), "up"])
    }

    /// Limits a host's link, in each direction, to so many kbit/s.
    ///
    /// # Errors
    /// Where `tc` fails.
    pub fn slow(&self, host: usize, kbit: u32) -> anyhow::Result<()> {
        let rate = format!("{kbit}kbit");
        for (namespace, device) in [(self.switch(), format!("h{host}")), (self.host(host), "eth0".to_owned())]
        {
            let mut tc = vec!["-n", &namespace, "qdisc", "replace", "dev", &device, "root", "tbf"];
            tc.extend(["rate", &rate, "burst", "16kb", "latency", "400ms"]);
            tool("tc", &tc)?;
        }
        Ok(())
    }

    /// Undoes [`Self::slow`].
    ///
    /// # Errors
    /// Where `tc` fails.
    pub fn speed_up(&self, host: usize) -> anyhow::Result<()> {
        for (namespace, device) in [(self.switch(), format!("h{host}")), (self.host(host), "eth0".to_owned())]
        {
            tool("tc", &["-n", &namespace, "qdisc", "del", "dev", &device, "root"])?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            let _ = ip(&["netns", "del", &self.host(host)]);
        }
        let _ = ip(&["netns", "del", &self.switch()]);
    }
}

/// A host's address.
#[must_use]
pub fn address(host: usize) -> String {
    format!("10.77.0.{}", host + 1)
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    tool("ip", args)
}

fn tool(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let out =
        Command::new(program).args(args).output().with_context(|| format!("{program} (package iproute2)"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}
