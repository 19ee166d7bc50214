//! Devices: which ones a worker is given, and what class each belongs to.

use crate::cuda_runtime;
use crate::lane::LaneDevice;
pub use crate::lane::Named;
use serde::Serialize;
use std::str::FromStr;
use tch::Device;
use thiserror::Error;

/// Version of libtorch that this binary was built for.
pub const LIBTORCH: &str = env!("ABLATE_LIBTORCH_VERSION");

/// Most lanes of one process.
const MAX_LANES: usize = 256;

/// What `--device` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceList {
    /// Every GPU, or one CPU lane where there is none.
    Auto,
    /// One lane per entry; an entry may be there several times.
    Listed(Vec<Named>),
}

/// Why a worker cannot use the devices it was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// Not a device name.
    #[error(
        "`{0}` is not a device; write cpu, cuda:N or auto, or several with commas: cpu,cpu or cuda:0,cuda:1"
    )]
    Unknown(String),
    /// Too many lanes.
    #[error("{0} lanes are more than one process takes ({MAX_LANES})")]
    TooMany(usize),
    /// There is no such GPU.
    #[error(
        "--device: there is no cuda:{index} here ({why}); use --device cpu, or --device auto for what there is"
    )]
    NoGpu {
        /// The number asked for.
        index: usize,
        /// What was found instead.
        why: String,
    },
}

impl FromStr for DeviceList {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        let named: Vec<Named> = text
            .split(',')
            .map(|part| match part.trim() {
                "cpu" => Ok(Named::Cpu),
                "cuda" => Ok(Named::Cuda(0)),
                other => other
                    .strip_prefix("cuda:")
                    .filter(|n| n.len() < 5 && n.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|n| n.parse().ok())
                    .map(Named::Cuda)
                    .ok_or_else(|| DeviceError::Unknown(other.to_owned())),
            })
            .collect::<Result<_, _>>()?;
        if named.len() > MAX_LANES {
            return Err(DeviceError::TooMany(named.len()));
        }
        Ok(Self::Listed(named))
    }
}

/// What this machine has.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The CUDA side of libtorch.
    pub cuda: cuda_runtime::CudaSide,
    /// GPUs that libtorch can use, by name.
    pub gpus: Vec<String>,
    /// The processor's model and the vector units that decide which kernels run.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
}

impl Machine {
    /// Looks. Loads the CUDA side of libtorch first, where it is there.
    #[must_use]
    pub fn look() -> Self {
        let cuda = cuda_runtime::load();
        let usable = if tch::Cuda::is_available() {
            usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
        } else {
            0
        };
        let mut gpus = if usable > 0 { cuda_runtime::gpu_names() } else { Vec::new() };
        gpus.resize_with(usable, || "unknown GPU".to_owned());
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cuda, gpus, cpu: cpu_class(&info), cores }
    }

    /// The lanes for a device list, with `threads` each (default: the cores shared out evenly).
    ///
    /// # Errors
    /// Where a GPU is asked for that isn't there.
    pub fn lanes(&self, list: &DeviceList, threads: Option<usize>) -> Result<Vec<LaneDevice>, DeviceError> {
        let named = match list {
            DeviceList::Auto if self.gpus.is_empty() => vec![Named::Cpu],
            DeviceList::Auto => (0..self.gpus.len()).map(Named::Cuda).collect(),
            DeviceList::Listed(named) => named.clone(),
        };
        let threads = threads.unwrap_or(self.cores / named.len().max(1)).max(1);
        (0u32..)
            .zip(named)
            .map(|(lane, named)| {
                let (name, class) = match named {
                    Named::Cpu => ("cpu".to_owned(), self.cpu.clone()),
                    Named::Cuda(index) => {
                        let gpu = self
                            .gpus
                            .get(index)
                            .ok_or_else(|| DeviceError::NoGpu { index, why: self.why_no_gpu() })?;
                        let driver = cuda_runtime::driver_version().unwrap_or_else(|| "unknown".to_owned());
                        (format!("cuda:{index}"), format!("{gpu}; driver {driver}"))
                    }
                };
                let class = format!("{class}; libtorch {LIBTORCH}; threads {threads}");
                Ok(LaneDevice { lane, device: named, name, class, threads })
            })
            .collect()
    }

    fn why_no_gpu(&self) -> String {
        use cuda_runtime::CudaSide::{Absent, Broken, Loaded, NoDriver};
        match (&self.cuda, self.gpus.len()) {
            (_, n) if n > 0 => format!("GPUs: {n}, numbered from 0"),
            (Absent, _) => {
                "this libtorch has no CUDA side: libtorch_cuda.so is not beside libtorch_cpu.so".to_owned()
            }
            (NoDriver(_), _) => "no NVIDIA driver answers".to_owned(),
            (Loaded(_), _) => "libtorch finds no GPU".to_owned(),
            (Broken { path, detail }, _) => format!("{} did not load: {detail}", path.display()),
        }
    }
}

/// Processor model and its vector units, from /proc/cpuinfo.
fn cpu_class(info: &str) -> String {
    let field = |name: &str| {
        info.lines().find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == name).map(|(_, v)| v.trim()))
    };
    let model = field("model name").unwrap_or(std::env::consts::ARCH);
    let flags: Vec<&str> =
        field("flags").or_else(|| field("Features")).unwrap_or("").split_whitespace().collect();
    let units = [
        ("avx2", "avx2"),
        ("avx512f", "avx512"),
        ("avx512_vnni", "vnni"),
        ("avx512_bf16", "avx512-bf16"),
        ("amx_tile", "amx"),
        ("sve", "sve"),
    ];
    let have: Vec<&str> = units.iter().filter(|(flag, _)| flags.contains(flag)).map(|u| u.1).collect();
    if have.is_empty() { model.to_owned() } else { format!("{model} ({})", have.join(" ")) }
}

/// What `--doctor` prints.
#[derive(Debug, Serialize)]
pub struct Doctor {
    /// Version of the program.
    pub version: &'static str,
    /// Version of libtorch it was built for.
    pub libtorch: &'static str,
    /// The libtorch that is loaded.
    pub libtorch_path: Option<String>,
    /// State of the CUDA side.
    pub cuda: String,
    /// GPUs that libtorch can use.
    pub gpus: Vec<String>,
    /// Processors.
    pub cores: usize,
    /// Whether NCCL can be loaded.
    pub nccl: bool,
    /// The lanes that the given `--device` makes.
    pub lanes: Vec<DoctorLane>,
    /// Whether a small product on every lane's device came out right.
    pub ok: bool,
    /// What is wrong and what to do.
    pub problems: Vec<String>,
}

/// One lane of a [`Doctor`].
#[derive(Debug, Serialize)]
pub struct DoctorLane {
    /// Device name.
    pub device: String,
    /// Device class.
    pub class: String,
    /// Threads.
    pub threads: usize,
}

/// Checks libtorch and the devices.
#[must_use]
pub fn doctor(machine: &Machine, list: &DeviceList, threads: Option<usize>) -> Doctor {
    let mut problems = Vec::new();
    let lanes = machine.lanes(list, threads).unwrap_or_else(|e| {
        problems.push(e.to_string());
        Vec::new()
    });
    for lane in &lanes {
        if let Err(e) = try_device(torch(lane.device)) {
            problems.push(format!("{}: {e}", lane.name));
        }
    }
    if let cuda_runtime::CudaSide::Broken { path, detail } = &machine.cuda {
        problems.push(format!(
            "{} did not load: {detail}; reinstall torch {LIBTORCH} with its CUDA packages",
            path.display()
        ));
    }
    let cuda = match &machine.cuda {
        cuda_runtime::CudaSide::Absent => "absent: CPU only".to_owned(),
        cuda_runtime::CudaSide::NoDriver(_) => "present, not loaded: no NVIDIA driver".to_owned(),
        cuda_runtime::CudaSide::Loaded(p) => format!("loaded from {}", p.display()),
        cuda_runtime::CudaSide::Broken { .. } => "broken".to_owned(),
    };
    Doctor {
        version: env!("CARGO_PKG_VERSION"),
        libtorch: LIBTORCH,
        libtorch_path: cuda_runtime::loaded("libtorch_cpu.so").map(|p| p.display().to_string()),
        cuda,
        gpus: machine.gpus.clone(),
        cores: machine.cores,
        nccl: cuda_runtime::has_nccl(),
        lanes: lanes
            .into_iter()
            .map(|l| DoctorLane { device: l.name, class: l.class, threads: l.threads })
            .collect(),
        ok: problems.is_empty(),
        problems,
    }
}

/// The device as libtorch names it.
#[must_use]
pub fn torch(named: Named) -> Device {
    match named {
        Named::Cpu => Device::Cpu,
        Named::Cuda(index) => Device::Cuda(index),
    }
}

fn try_device(device: Device) -> Result<(), String> {
    let run = || -> Result<f64, tch::TchError> {
        let a = tch::Tensor::f_ones([8, 8], (tch::Kind::Float, device))?;
        let sum = a.f_matmul(&a)?.f_sum(tch::Kind::Float)?;
        f64::try_from(&sum)
    };
    match run() {
        Ok(sum) if (sum - 512.0).abs() < 1e-6 => Ok(()),
        Ok(sum) => Err(format!("a product of ones gave {sum} instead of 512")),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_lists_are_parsed_and_refused_by_name() {
        assert_eq!("auto".parse(), Ok(DeviceList::Auto));
        assert_eq!("cpu, cpu".parse(), Ok(DeviceList::Listed(vec![Named::Cpu, Named::Cpu])));
        assert_eq!("cuda:0,cuda:3".parse(), Ok(DeviceList::Listed(vec![Named::Cuda(0), Named::Cuda(3)])));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:99999", "cpu,,cpu", "auto,cpu"] {
            assert!(bad.parse::<DeviceList>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_refused_and_classes_name_the_threads() {
        let machine = Machine {
            cuda: cuda_runtime::CudaSide::Absent,
            gpus: Vec::new(),
            cpu: "X (avx2)".into(),
            cores: 4,
        };
        let error =
            machine.lanes(&DeviceList::Listed(vec![Named::Cuda(1)]), None).map(|_| ()).expect_err("no GPU");
        assert!(error.to_string().contains("cuda:1"), "{error}");
        let lanes =
            machine.lanes(&DeviceList::Listed(vec![Named::Cpu, Named::Cpu]), None).expect("two lanes");
        assert_eq!(lanes.len(), 2);
        assert_eq!(lanes[1].class, format!("X (avx2); libtorch {LIBTORCH}; threads 2"));
    }

    #[test]
    fn the_processor_class_has_the_model_and_its_vector_units() {
        let info = "processor : 0\nmodel name\t: Some CPU @ 2GHz\nflags\t\t: fpu avx2 avx512f amx_tile\n";
        assert_eq!(cpu_class(info), "Some CPU @ 2GHz (avx2 avx512 amx)");
        assert_eq!(cpu_class(""), std::env::consts::ARCH);
    }
}
