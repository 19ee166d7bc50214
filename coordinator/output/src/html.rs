//! `report.html`.

use crate::analyse::{Analysis, analyse};
use crate::results::Results;
use std::path::Path;

/// Writes the report.
///
/// # Errors
/// Where the file can't be written.
pub fn report(results: &Results, path: &Path) -> anyhow::Result<()> {
    report_analysed(results, &analyse(results), path)
}

/// [`report`] with an analysis made before.
///
/// # Errors
/// As [`report`].
pub fn report_analysed(_results: &Results, _analysis: &Analysis, path: &Path) -> anyhow::Result<()> {
    crate::write::atomically(path, |_| Ok(()))
}
