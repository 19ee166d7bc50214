//! Nodes as processes: they begin, are stopped as kill -9 stops them, and step by clocks of their own.

use super::{STEP, World};
use crate::disk::{Connection, url};
use crate::node::Coordinator;
use crate::trace::lock;
use crate::{lane, wire};
use ablate_coordinator::scheduler;
use ablate_worker_client::compute::Compute;
use ablate_worker_client::lane::{LaneDevice, Named};
use ablate_worker_client::route::Route;
use rand::Rng;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

impl World {
    pub(super) fn boot(&mut self, node: usize) {
        let Ok(rt) = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
        else {
            return self.sim.violated("simulation", format_args!("no runtime"));
        };
        let at = &mut self.nodes[node];
        at.life += 1;
        at.up_at = None;
        at.carry = 0.0;
        let life = at.life;
        self.sim.say(format_args!("node {node} begins life {life}"));
        let main = if node < self.setup.coordinators {
            let lead = (self.setup.coordinators > 1).then(|| Duration::from_millis(self.setup.lead));
            let coordinator = Coordinator {
                net: self.net.clone(),
                node,
                store: Connection::new(self.disk.clone(), node, life, lead),
                scheduler: scheduler::Config {
                    lease: self.setup.lease,
                    audit: self.setup.audit,
                    ..scheduler::Config::default()
                },
                new: self.new.clone(),
                retry: self.retry.clone(),
            };
            rt.spawn(coordinator.run())
        } else {
            let (drain, drained) = watch::channel(false);
            self.nodes[node].drain = Some(drain);
            match self.worker(node, life) {
                Ok(config) => rt.spawn(async move {
                    match ablate_worker_client::run(config, drained).await {
                        Ok(outcome) => format!("{outcome:?}"),
                        Err(e) => e.to_string(),
                    }
                }),
                Err(e) => return self.sim.violated("simulation", format_args!("{e}")),
            }
        };
        lock(&self.net).hosts[node].handle = Some(rt.handle().clone());
        let at = &mut self.nodes[node];
        at.rt = Some(rt);
        at.main = Some(main);
    }

    fn worker(&self, node: usize, life: u64) -> Result<ablate_worker_client::Config, String> {
        let n = node - self.setup.coordinators;
        let urls: Vec<String> = (0..self.setup.coordinators).map(url).collect();
        let lane = |lane| LaneDevice {
            lane,
            device: Named::Cpu,
            name: "cpu".into(),
            class: "simulated".into(),
            threads: 1,
        };
        Ok(ablate_worker_client::Config {
            route: Route::parse(&urls.join(","), ablate_net::Access::default())?,
            name: format!("n{node}:{life}"),
            lanes: (0..self.setup.lanes[n]).map(lane).collect(),
            start: lane::starter(
                self.sim.clone(),
                node,
                self.paces[n].clone(),
                self.new.clone(),
                self.lane_rng.clone(),
            ),
            protocol: ablate_common::PROTOCOL_VERSION,
            engine: ablate_common::ENGINE_VERSION + u32::from(self.setup.stranger == Some(n)),
            dial: wire::dial(self.net.clone(), node),
            limits: self.setup.limits,
            compute: Compute::Here,
            model_root: None,
            other_work_patience: Duration::from_secs(10),
        })
    }

    /// Ends a node's process.
    pub(super) fn stop(&mut self, node: usize, silent: bool) {
        lock(&self.net).crash(node, silent);
        lock(&self.sim.checks).crashed(node);
        let at = &mut self.nodes[node];
        at.main = None;
        at.drain = None;
        at.paused = None;
        lock(&self.net).hosts[node].paused = false;
        // Dropping it drops all that ran, as kill -9 does.
        drop(at.rt.take());
    }

    /// Nodes whose time has come.
    pub(super) fn wake(&mut self, now: u64) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].up_at.is_some_and(|at| at <= now) {
                self.boot(node);
            }
            if let Some((since, _)) = self.nodes[node].paused.filter(|(_, until)| *until <= now) {
                self.nodes[node].paused = None;
                self.nodes[node].carry += (now - since) as f64 * self.setup.rates[node];
                lock(&self.net).hosts[node].paused = false;
            }
        }
    }

    pub(super) fn step_nodes(&mut self) {
        for node in 0..self.nodes.len() {
            let at = &mut self.nodes[node];
            if at.paused.is_some() {
                continue;
            }
            let Some(rt) = &at.rt else { continue };
            at.carry += STEP as f64 * self.setup.rates[node];
            let ms = at.carry.max(0.0).floor();
            at.carry -= ms;
            let ms = ms as u64;
            rt.block_on(async {
                let mut ms = ms;
                if ms > 2 * STEP {
                    // It stood still, or its clock jumped: all timers are late at once.
                    tokio::time::advance(Duration::from_millis(ms - STEP)).await;
                    ms = STEP;
                }
                tokio::time::sleep(Duration::from_millis(ms)).await;
            });
            if at.main.as_ref().is_some_and(JoinHandle::is_finished) {
                let why = at.main.take().map(|main| rt.block_on(main));
                self.sim.say(format_args!("node {node} ended: {why:?}"));
                self.stop(node, false);
                // Whoever supervises it starts it again.
                let wait = self.rng.random_range(200..1500);
                self.nodes[node].up_at = Some(self.sim.now() + wait);
            }
        }
    }
}
