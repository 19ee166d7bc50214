//! Memory that lanes may use: what is free on their device, or less where that was asked for.

use crate::cuda_runtime;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tch::Device;

/// Free memory by device.
#[derive(Debug, Default)]
pub struct Free {
    /// Bytes that a lane may use at most; none: what is free.
    limit: Option<u64>,
    /// Lanes on each device, by its name in libtorch.
    lanes: HashMap<String, u64>,
    /// What was free on each GPU before anything of this process lay there: libtorch doesn't give back what it has
    /// used once.
    gpus: Mutex<HashMap<usize, Option<u64>>>,
}

/// What a lane may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes that are free now.
    pub now: u64,
    /// Bytes that are free where this process gives back what it has: other experiments' models and states, and those of its other
    /// lanes, who have shares of their own.
    pub most: u64,
}

impl Free {
    /// For lanes on these devices, each of which may use `limit` bytes.
    #[must_use]
    pub fn new(limit: Option<u64>, devices: impl IntoIterator<Item = Device>) -> Self {
        let mut lanes = HashMap::new();
        for device in devices {
            *lanes.entry(format!("{device:?}")).or_insert(0) += 1;
        }
        Self { limit, lanes, gpus: Mutex::default() }
    }

    /// What a lane of a device may use: its share of what is free there. None where that isn't known.
    #[must_use]
    pub fn of(&self, device: Device) -> Option<Share> {
        let free = match device {
            Device::Cpu => share(Path::new("/")),
            Device::Cuda(index) => {
                let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
                let first = *gpus.entry(index).or_insert_with(|| cuda_runtime::free_memory(index));
                first.map(|free| Share { now: free, most: free })
            }
            _ => None,
        };
        let lanes = self.lanes.get(&format!("{device:?}")).copied().unwrap_or(1).max(1);
        match (free, self.limit) {
            (Some(free), limit) => {
                let part = |bytes: u64| (bytes / lanes).min(limit.unwrap_or(u64::MAX));
                Some(Share { now: part(free.now), most: part(free.most) })
            }
            (None, limit) => limit.map(|limit| Share { now: limit, most: limit }),
        }
    }
}

/// Bytes for base states where `free` are free and passes take `passes`: half of what is left, the other half being
/// for other programs and for what was counted too low.
#[must_use]
pub fn room(free: u64, passes: u64) -> u64 {
    free.saturating_sub(passes) / 2
}

/// The number behind `key` in a file of /proc or /sys.
fn line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
}

/// All of this process's lanes' share of the machine's memory. `root` is where /proc and /sys lie.
fn share(root: &Path) -> Option<Share> {
    let now = available(root)?;
    // What is mapped from files counts as available.
    let status = std::fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let own = line(&status, "RssAnon").map_or(0, |kib| kib * 1024);
    Some(Share { now, most: now + own })
}

/// Memory that this process can still get: what the machine has available, or what its control group allows, if that
/// is less. `root` is where /proc and /sys lie.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|t| line(&t, "MemAvailable")).map(|kib| kib * 1024);
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let mut least = machine;
    let mut at_most = |most: u64, used: u64, cached: u64| {
        // Pages of files count as used, but go where memory is wanted.
        let left = most.saturating_sub(used.saturating_sub(cached));
        least = Some(least.map_or(left, |l| l.min(left)));
    };
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':');
        let (_, Some(kind), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (base, most, used) = match kind {
            "" => ("sys/fs/cgroup", "memory.max", "memory.current"),
            k if k.split(',').any(|k| k == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        // A container may see its own group as the root, whatever the path says.
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let number = |name: &str| {
                let text = read(&format!("{base}/{}/{name}", folder.display()))?;
                text.trim().parse::<u64>().ok()
            };
            if let (Some(most), Some(used)) = (number(most), number(used)) {
                let stat = read(&format!("{base}/{}/memory.stat", folder.display())).unwrap_or_default();
                let cached = line(&stat, "total_inactive_file ").or_else(|| line(&stat, "inactive_file "));
                at_most(most, used, cached.unwrap_or(0));
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::fs;

    #[test]
    fn a_control_group_and_its_parents_limit_what_the_machine_has() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available(root.path()), None);
        put("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
        assert_eq!(available(root.path()), Some(8_192_000));
        put("proc/self/cgroup", "0::/jobs/one\n");
        put("sys/fs/cgroup/jobs/one/memory.max", "max\n");
        put("sys/fs/cgroup/jobs/one/memory.current", "1000\n");
        put("sys/fs/cgroup/jobs/memory.max", "5000000\n");
        put("sys/fs/cgroup/jobs/memory.current", "3000000\n");
        put("sys/fs/cgroup/jobs/memory.stat", "anon 1\ninactive_file 500000\n");
        assert_eq!(available(root.path()), Some(2_500_000));
        put("proc/self/cgroup", "5:cpu,memory:/jobs\n0::/\n");
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n");
        put("sys/fs/cgroup/memory/memory.usage_in_bytes", "300000\n");
        assert_eq!(available(root.path()), Some(400_000));
        // What the process has is its own to give back.
        assert_eq!(share(root.path()), Some(Share { now: 400_000, most: 400_000 }));
        put("proc/self/status", "VmRSS:\t     900 kB\nRssAnon:\t     500 kB\nRssFile:\t     400 kB\n");
        assert_eq!(share(root.path()), Some(Share { now: 400_000, most: 912_000 }));
    }

    #[test]
    fn a_limit_holds_for_each_lane_and_lanes_share_what_is_free() {
        let one = Free::new(None, [Device::Cpu]).of(Device::Cpu).unwrap();
        let shared = Free::new(None, [Device::Cpu; 4]).of(Device::Cpu).unwrap();
        assert!(shared.now < one.now / 2 && shared.most < one.most / 2, "{shared:?} {one:?}");
        let limit = Some(Share { now: 1000, most: 1000 });
        assert_eq!(Free::new(Some(1000), [Device::Cpu]).of(Device::Cpu), limit);
    }
}
