//! The matrix of interactions, small enough to be shown: a cell for each pair of units, or of neighbouring units where they are too many.

use super::short;
use ablate_common::units::{Place, UnitIx};
use serde::Serialize;

/// Units up to which every pair has a cell of its own.
pub const LARGEST: usize = 300;
/// Rows of a matrix of more units, at most.
const MOST: usize = 256;

/// How units fall into rows (and columns) of the matrix.
#[derive(Clone, Debug, Serialize)]
pub struct Bins {
    /// Rows.
    pub rows: usize,
    /// First unit of each row; a row ends where the next begins.
    pub first: Vec<u32>,
    /// Row of each unit.
    #[serde(skip)]
    of: Vec<u32>,
}

impl Bins {
    /// Rows for units in this order. No row holds units of two layers, unless there are more layers than rows.
    #[must_use]
    pub fn of(places: &[Place]) -> Self {
        if places.len() <= LARGEST {
            return Self::from((0..places.len() as u32).collect());
        }
        let layer = |p: &Place| (p.stream, p.layer);
        let layers: Vec<usize> = if places.iter().all(|p| p.layer.is_some()) {
            places.chunk_by(|a, b| layer(a) == layer(b)).map(<[Place]>::len).collect()
        } else {
            vec![1; places.len()]
        };
        let (each, merged) = (MOST / layers.len(), layers.len().div_ceil(MOST));
        let mut of = Vec::with_capacity(places.len());
        let mut next = 0;
        for (l, &n) in layers.iter().enumerate() {
            if each == 0 {
                of.extend(std::iter::repeat_n((l / merged) as u32, n));
            } else {
                let rows = each.min(n);
                of.extend((0..n).map(|k| next + (k * rows / n) as u32));
                next += rows as u32;
            }
        }
        Self::from(of)
    }

    fn from(of: Vec<u32>) -> Self {
        let begins = |i: &u32| *i == 0 || of[*i as usize] != of[*i as usize - 1];
        let first: Vec<u32> = (0..of.len() as u32).filter(begins).collect();
        Self { rows: first.len(), first, of }
    }

    /// Whether each unit has a row of its own.
    fn single(&self) -> bool {
        self.rows == self.of.len()
    }

    fn row(&self, unit: UnitIx) -> Option<usize> {
        self.of.get(unit.at()).map(|&r| r as usize)
    }
}

/// A cell as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CellView {
    /// A pair of units: row, column, interaction.
    One(u32, u32, f64),
    /// Pairs of neighbours: row, column, strongest interaction, mean of all, number of pairs, the strongest's units.
    Several(u32, u32, f64, f64, u32, u32, u32),
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    strongest: f64,
    sum: f64,
    pairs: u32,
    units: (u32, u32),
    version: u64,
}

/// The upper triangle with its diagonal: a row of several units has pairs of its own.
#[derive(Debug)]
pub(super) struct Matrix {
    bins: Bins,
    cells: Vec<Cell>,
    known: u64,
}

impl Matrix {
    pub fn new(bins: Bins) -> Self {
        let n = bins.rows;
        Self { cells: vec![Cell::default(); n * (n + 1) / 2], bins, known: 0 }
    }

    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    pub fn known(&self) -> u64 {
        self.known
    }

    /// Adds a pair, i before j. A NaN is counted, and is no cell's strongest while a number is there.
    pub fn add(&mut self, i: UnitIx, j: UnitIx, value: f64, version: u64) {
        let (Some(r), Some(c)) = (self.bins.row(i), self.bins.row(j)) else { return };
        let (r, c) = (r.min(c), r.max(c));
        let at = self.row_start(r) + c - r;
        let Some(cell) = self.cells.get_mut(at) else { return };
        self.known += 1;
        if cell.pairs == 0 || value.abs() > cell.strongest.abs() || cell.strongest.is_nan() {
            (cell.strongest, cell.units) = (value, (i.0, j.0));
        }
        cell.sum += value;
        cell.pairs += 1;
        cell.version = version;
    }

    fn row_start(&self, r: usize) -> usize {
        r * (2 * self.bins.rows - r + 1) / 2
    }

    /// Cells that changed after `since`.
    pub fn changed(&self, since: u64) -> Vec<CellView> {
        let mut out = Vec::new();
        for r in 0..self.bins.rows {
            let start = self.row_start(r);
            for c in r..self.bins.rows {
                let cell = &self.cells[start + c - r];
                if cell.pairs == 0 || cell.version <= since {
                    continue;
                }
                let (row, column, strongest, (a, b)) =
                    (r as u32, c as u32, short(cell.strongest), cell.units);
                out.push(if self.bins.single() {
                    CellView::One(row, column, strongest)
                } else {
                    let mean = short(cell.sum / f64::from(cell.pairs));
                    CellView::Several(row, column, strongest, mean, cell.pairs, a, b)
                });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ablate_common::head::Stream;

    fn places(streams: &[(Stream, u32, u32)]) -> Vec<Place> {
        let mut out = Vec::new();
        for &(stream, layers, heads) in streams {
            for (l, h) in (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))) {
                let name = format!("{stream} L{l}.H{h}");
                out.push(Place { stream: Some(stream), layer: Some(l), head: Some(h), name });
            }
        }
        out
    }

    #[test]
    fn thousands_of_heads_fit_into_a_few_hundred_rows_that_keep_to_layers() {
        for (streams, rows) in [
            (vec![(Stream::SelfAttention, 6, 12)], 72),
            (vec![(Stream::SelfAttention, 30, 9)], 270),
            (vec![(Stream::SelfAttention, 128, 40)], 256),
            (vec![(Stream::SelfAttention, 80, 64)], 240),
            (vec![(Stream::Encoder, 24, 16), (Stream::Decoder, 24, 16), (Stream::Cross, 24, 16)], 216),
            (vec![(Stream::SelfAttention, 1000, 4)], 250),
        ] {
            let places = places(&streams);
            let bins = Bins::of(&places);
            assert_eq!((bins.rows, bins.of.len()), (rows, places.len()));
            assert!(bins.of.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1), "in order, none left out");
            if streams[0].1 < 256 {
                let one = |r: u32| {
                    let mut layers: Vec<_> = (0..places.len())
                        .filter(|&u| bins.of[u] == r)
                        .map(|u| (places[u].stream, places[u].layer))
                        .collect();
                    layers.dedup();
                    layers.len() == 1
                };
                assert!((0..rows as u32).all(one), "a row holds one layer's");
            }
        }
    }

    #[test]
    fn thirteen_million_pairs_are_a_cell_each_for_neighbours_with_the_strongest_on_top() {
        let bins = Bins::of(&places(&[(Stream::SelfAttention, 128, 40)]));
        let mut matrix = Matrix::new(bins);
        let value = |i: u32, j: u32| f64::from((i * 31 + j * 17) % 1000) - 499.5;
        let mut sum = 0.0;
        for i in 0..5120u32 {
            for j in i + 1..5120 {
                matrix.add(UnitIx(i), UnitIx(j), value(i, j), u64::from(i) + 1);
                sum += value(i, j);
            }
        }
        assert_eq!(matrix.known(), 13_104_640);
        let several = |c: CellView| match c {
            CellView::Several(r, c, strongest, mean, pairs, a, b) => (r, c, strongest, mean, pairs, a, b),
            CellView::One(..) => panic!("a row holds several heads"),
        };
        let cells: Vec<_> = matrix.changed(0).into_iter().map(several).collect();
        assert_eq!(cells.len(), 256 * 257 / 2);
        assert_eq!(cells.iter().map(|c| u64::from(c.4)).sum::<u64>(), 13_104_640);
        for &(r, c, strongest, mean, pairs, a, b) in cells.iter().step_by(997) {
            let own: Vec<f64> = (r * 20..r * 20 + 20)
                .flat_map(|i| (c * 20..c * 20 + 20).filter(move |&j| j > i).map(move |j| value(i, j)))
                .collect();
            assert_eq!(own.len() as u32, pairs);
            let most = own.iter().fold(0.0f64, |m, v| if v.abs() > m.abs() { *v } else { m });
            assert!((strongest.abs() - most.abs()).abs() < 1e-9 && (value(a, b) - strongest).abs() < 1e-9);
            assert!((mean - own.iter().sum::<f64>() / own.len() as f64).abs() < 0.01);
        }
        assert!(sum.is_finite());
        // Later on only what changed is sent.
        matrix.add(UnitIx(0), UnitIx(5119), 1e6, 9000);
        let changed: Vec<_> = matrix.changed(8999).into_iter().map(several).collect();
        let &[(row, column, strongest, _, pairs, a, b)] = changed.as_slice() else { panic!("{changed:?}") };
        assert_eq!((row, column, strongest, pairs, a, b), (0, 255, 1e6, 401, 0, 5119));
    }
}
