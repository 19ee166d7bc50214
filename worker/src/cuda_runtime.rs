//! The CUDA side of libtorch and the driver, loaded at run time: the same binary runs without CUDA.
#![expect(
    unsafe_code,
    reason = "loading shared libraries and calling functions of the CUDA driver and runtime"
)]

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int};
use std::path::PathBuf;

/// What came of looking for libtorch_cuda.so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaSide {
    /// No such file beside libtorch_cpu.so: a lean libtorch.
    Absent,
    /// The file is there, but the machine has no NVIDIA driver: not loaded.
    NoDriver(PathBuf),
    /// Loaded.
    Loaded(PathBuf),
    /// The file is there and did not load.
    Broken {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        detail: String,
    },
}

/// Loads libtorch_cuda.so (now, global) where it is there and the machine has a GPU driver. Call it
/// before anything else of libtorch.
#[must_use]
pub fn load() -> CudaSide {
    let Some(path) = folders().into_iter().map(|d| d.join("libtorch_cuda.so")).find(|p| p.exists()) else {
        return CudaSide::Absent;
    };
    if driver().is_none() {
        return CudaSide::NoDriver(path);
    }
    // SAFETY: the initialisers of libtorch_cuda only register its operators; it stays loaded for good.
    match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            CudaSide::Loaded(path)
        }
        Err(e) => CudaSide::Broken { path, detail: e.to_string() },
    }
}

/// Where libtorch_cuda.so may lie: $LIBTORCH, beside the loaded libtorch_cpu.so (and where that links
/// to), and beside the binary.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(root) = std::env::var_os("LIBTORCH") {
        found.push(PathBuf::from(root).join("lib"));
    }
    if let Some(cpu) = loaded("libtorch_cpu.so") {
        found.extend(cpu.parent().map(PathBuf::from));
        found.extend(cpu.canonicalize().ok().and_then(|p| p.parent().map(PathBuf::from)));
    }
    if let Some(bin) = std::env::current_exe().ok().and_then(|p| p.parent().map(PathBuf::from)) {
        found.push(bin.join("../lib/libtorch"));
    }
    found
}

/// Path of a library that this process has mapped.
#[must_use]
pub fn loaded(name: &str) -> Option<PathBuf> {
    mapped(|file| file == name)
}

/// [`loaded`], where the name may go on with a version.
fn loaded_like(name: &str) -> Option<PathBuf> {
    mapped(|file| file.starts_with(name))
}

fn mapped(named: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|l| {
        let path = l.find('/').map(|at| PathBuf::from(&l[at..]))?;
        path.file_name().and_then(|f| f.to_str()).is_some_and(&named).then_some(path)
    })
}

/// Whether libnccl can be loaded.
#[must_use]
pub fn has_nccl() -> bool {
    let open = |p: PathBuf| {
        // SAFETY: NCCL's initialisers have no effect beyond the library.
        unsafe { Library::open(Some(p), RTLD_NOW) }.is_ok()
    };
    let beside = folders()
        .into_iter()
        .flat_map(|d| [d.join("libnccl.so.2"), d.join("../../nvidia/nccl/lib/libnccl.so.2")]);
    beside.filter(|p| p.exists()).chain([PathBuf::from("libnccl.so.2")]).any(open)
}

/// An initialised CUDA driver.
fn driver() -> Option<Library> {
    // SAFETY: libcuda is the driver's own library; cuInit takes flags that must be 0.
    unsafe {
        let library = Library::open(Some("libcuda.so.1"), RTLD_NOW).ok()?;
        let ok = library.get::<unsafe extern "C" fn(u32) -> c_int>(b"cuInit\0").ok()?(0) == 0;
        ok.then_some(library)
    }
}

/// Names of the GPUs that this process may use, in the driver's order (CUDA_VISIBLE_DEVICES holds).
#[must_use]
pub fn gpu_names() -> Vec<String> {
    let Some(library) = driver() else { return Vec::new() };
    // SAFETY: the signatures are the CUDA driver API's; the buffer's length is passed along.
    unsafe {
        let Ok(count) = library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount\0")
        else {
            return Vec::new();
        };
        let Ok(name) =
            library.get::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(b"cuDeviceGetName\0")
        else {
            return Vec::new();
        };
        let mut n: c_int = 0;
        if count(&mut n) != 0 {
            return Vec::new();
        }
        (0..n)
            .map(|i| {
                let mut buffer = [0 as c_char; 256];
                if name(buffer.as_mut_ptr(), 255, i) == 0 {
                    CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned()
                } else {
                    format!("GPU {i}")
                }
            })
            .collect()
    }
}

/// Bytes that are free on a GPU (CUDA_VISIBLE_DEVICES holds); none where the CUDA runtime of libtorch isn't loaded or
/// doesn't answer.
#[must_use]
pub fn free_memory(index: usize) -> Option<u64> {
    let path = loaded_like("libcudart.so")?;
    let index = c_int::try_from(index).ok()?;
    // SAFETY: the signatures are the CUDA runtime API's, of the library that libtorch has loaded already; both
    // pointers are to values that outlive the call.
    unsafe {
        let library = Library::open(Some(path), RTLD_NOW).ok()?;
        let choose = library.get::<unsafe extern "C" fn(c_int) -> c_int>(b"cudaSetDevice\0").ok()?;
        let info =
            library.get::<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int>(b"cudaMemGetInfo\0").ok()?;
        let (mut free, mut total) = (0usize, 0usize);
        (choose(index) == 0 && info(&mut free, &mut total) == 0 && total > 0).then_some(free as u64)
    }
}

/// Version of the NVIDIA kernel driver, as "580.65.06".
#[must_use]
pub fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let line = text.lines().next()?;
    line.split_whitespace()
        .find(|w| w.contains('.') && w.chars().all(|c| c.is_ascii_digit() || c == '.'))
        .map(str::to_owned)
}
