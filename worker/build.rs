//! Gives the binary and the tests an rpath to libtorch, so that they run without any environment
//! variable, and records which libtorch they were built for.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let root = std::env::var_os("LIBTORCH").map(PathBuf::from).map(|p| std::path::absolute(&p).unwrap_or(p));
    let version = root.as_deref().and_then(version).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=ABLATE_LIBTORCH_VERSION={version}");
    let Some(lib) = root.map(|r| r.join("lib")) else { return };
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // DT_RPATH, not DT_RUNPATH: it also holds for what libtorch itself loads (libcudart, libcupti).
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // Where the libraries were packed beside the binary.
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib/libtorch");
}

/// Version in libtorch's headers; they moved between releases.
fn version(root: &Path) -> Option<String> {
    let file = ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"]
        .iter()
        .map(|p| root.join(p))
        .find(|p| p.exists())?;
    println!("cargo:rerun-if-changed={}", file.display());
    let text = std::fs::read_to_string(file).ok()?;
    let part = |name: &str| {
        text.lines().find_map(|l| {
            l.strip_prefix(&format!("#define TORCH_VERSION_{name} ")).map(|v| v.trim().to_owned())
        })
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}
