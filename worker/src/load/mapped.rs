//! Read-only memory maps of weight files. The only unsafe code of the loader, alone here.
#![expect(unsafe_code, reason = "mapping a file is unsafe: see below")]

use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// Maps a file for reading.
///
/// A map is undefined behaviour if another process shortens or rewrites the file while it is mapped.
/// Weight files are immutable by contract (their hash is part of an experiment's identity), the map
/// lives only while weights are copied out, and the alternative is a second copy of every model.
///
/// # Errors
/// Where the file can't be opened or mapped.
pub fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: opened read-only and not written by this process; see the paragraph above for others.
    unsafe { Mmap::map(&file) }
}
