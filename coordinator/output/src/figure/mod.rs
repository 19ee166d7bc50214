//! The figures of an experiment: drawn once, as SVG whose colours are CSS variables, for the page and for files
//! that stand alone.

mod across;
mod agree;
mod cluster;
mod curve;
pub mod draw;
mod effects;
mod forest;
mod graph;
mod heat;
pub mod ink;
mod matrix;
pub mod of_group;
mod portrait;
pub mod raster;
mod scatter;

use crate::analyse::{Analysis, Group};
use crate::results::Results;
use crate::write::{WrittenFile, atomically};
use anyhow::Context as _;
use rayon::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

/// Where a figure stands in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Units alone.
    Heads,
    /// Units in pairs and groups.
    Pairs,
    /// Pruning.
    Curves,
    /// Several tasks, methods or scores.
    Across,
    /// Heads one by one.
    Portraits,
}

/// Numbers behind a figure, for its CSV file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, as long as the columns are many.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|&c| c.to_owned()).collect(), rows: Vec::new() }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its files, and its address in the page.
    pub name: String,
    /// Where it stands.
    pub part: Part,
    /// Index of the group that it shows; none for several.
    pub group: Option<usize>,
    /// What it shows.
    pub title: String,
    /// What it finds, in a sentence.
    pub finding: String,
    /// How it is to be read.
    pub how: String,
    /// The drawing.
    pub svg: String,
    /// Its numbers; none where the page has them elsewhere.
    pub data: Option<Table>,
    /// Units along both sides of a matrix, in the order drawn.
    pub order: Option<Vec<usize>>,
    /// Whether it is drawn in place of the figure before it, on demand.
    pub instead: bool,
}

/// Attributes that only a page uses.
const PAGE_ONLY: [&str; 3] = [" data-tip=\"", " data-box=\"", " data-plte=\""];

/// A drawing without an attribute. Text can't look like one: its quotation marks are escaped.
fn without(svg: &str, attribute: &str) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some((before, after)) = rest.split_once(attribute) {
        out.push_str(before);
        rest = after.split_once('"').map_or("", |a| a.1);
    }
    out.push_str(rest);
    out
}

impl Figure {
    /// Its width in pixels.
    pub fn width(&self) -> f64 {
        let width = self.svg.split_once(" width=\"").and_then(|w| w.1.split_once('"')?.0.parse().ok());
        width.unwrap_or(600.0)
    }

    /// The drawing with colours of its own, on white paper, without what only a page uses.
    pub fn alone(&self) -> String {
        let mut out = PAGE_ONLY.iter().fold(self.svg.clone(), |svg, name| without(&svg, name));
        let end = out.find('>').map_or(0, |at| at + 1);
        out.insert_str(end, "<rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>");
        ink::resolve(&out)
    }
}

/// Every figure, in the order of the page.
///
/// # Errors
/// Where an image can't be encoded.
pub fn figures(results: &Results, analysis: &Analysis) -> anyhow::Result<Vec<Figure>> {
    let mut out = Vec::new();
    let several = analysis.groups.len() > 1;
    for at in 0..analysis.groups.len() {
        of_group::figures(analysis, at, several, &mut out)?;
    }
    agree::figures(analysis, &mut out);
    across::figures(analysis, &mut out);
    portrait::figures(results, analysis, &mut out);
    let mut taken = BTreeSet::new();
    for f in &mut out {
        let base = f.name.clone();
        let mut k = 2;
        while !taken.insert(f.name.clone()) {
            f.name = format!("{base}-{k}");
            k += 1;
        }
    }
    Ok(out)
}

/// Writes every figure as SVG and PNG into `dir`, which is made where it is missing.
///
/// # Errors
/// Where a file can't be written.
pub fn write(figures: &[Figure], dir: &Path) -> anyhow::Result<Vec<WrittenFile>> {
    std::fs::create_dir_all(dir).with_context(|| format!("can't make the folder {}", dir.display()))?;
    let one = |f: &Figure| -> anyhow::Result<[WrittenFile; 2]> {
        let svg = f.alone();
        let png = raster::png_of(&svg).with_context(|| format!("figure {}", f.name))?;
        let put = |extension: &str, bytes: &[u8]| -> anyhow::Result<WrittenFile> {
            let path = dir.join(format!("{}.{extension}", f.name));
            atomically(&path, |file| Ok(file.write_all(bytes)?))?;
            Ok(WrittenFile { path, rows: 0 })
        };
        Ok([put("svg", svg.as_bytes())?, put("png", &png)?])
    };
    let written: Vec<[WrittenFile; 2]> = figures.par_iter().map(one).collect::<anyhow::Result<_>>()?;
    Ok(written.into_iter().flatten().collect())
}

/// A name for files: lower case letters, digits and single hyphens.
pub fn slug(parts: &[&str]) -> String {
    let mut out = String::new();
    for part in parts.iter().filter(|p| !p.is_empty()) {
        if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        for c in part.chars().take(60) {
            if c.is_ascii_alphanumeric() {
                out.push(c.to_ascii_lowercase());
            } else if !out.ends_with('-') && !out.is_empty() {
                out.push('-');
            }
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// The words that tell a group from the others.
pub fn title_of(g: &Group, all: &[Group]) -> String {
    let same = all.iter().filter(|o| o.name == g.name).count();
    let units = all.iter().filter(|o| o.name == g.name && o.method == g.method).count();
    match (same > 1, units > 1) {
        (false, _) => g.name.clone(),
        (true, false) => format!("{}, {}", g.name, g.method),
        (true, true) => format!("{}, {} of {}", g.name, g.method, g.unit.plural()),
    }
}

/// A number with `digits` significant digits; null where it isn't one.
pub fn rounded(v: f64, digits: usize) -> Value {
    if v.is_finite() {
        format!("{v:.*e}", digits.saturating_sub(1)).parse::<f64>().map_or(Value::Null, Value::from)
    } else {
        Value::Null
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(slug(&["heads", "Wiki (de) ../x", "mean", ""]), "heads-wiki-de-x-mean");
        assert_eq!(slug(&["../..", "é"]), "");
    }

    #[test]
    fn what_stands_alone_has_no_variables_and_nothing_of_the_page() {
        let mut svg = draw::Svg::new(10.0, 10.0);
        svg.rect([0.0, 0.0, 1.0, 1.0], "var(--up)", &format!("class=\"m\" {}", draw::tip("a \"b\" = c")));
        let f = Figure {
            name: "x".into(),
            part: Part::Heads,
            group: None,
            title: String::new(),
            finding: String::new(),
            how: String::new(),
            svg: svg.finish("x"),
            data: None,
            order: None,
            instead: false,
        };
        let alone = f.alone();
        assert!(!alone.contains("var(") && !alone.contains("data-") && alone.contains("#c2500a"), "{alone}");
        assert!((f.width() - 10.0).abs() < 1e-9);
        assert!(raster::png_of(&alone).is_ok());
        assert_eq!(rounded(0.123_456_7, 3), serde_json::json!(0.123));
        assert_eq!(rounded(f64::NAN, 3), Value::Null);
    }
}
