//! A volume as a number of cells, each with how many units of it are what. Compact: a volume of any size has at most
//! [`CELLS_MAX`] cells.

use serde::{Serialize, Serializer};
use std::fmt::Write;

/// Cells at the most: 32 rows of 64, each still seen on a telephone.
pub const CELLS_MAX: u64 = 2048;

/// Units of each cell, in order of address. In JSON it is a text: `0-3:1 17:5` is one unit in each of the cells 0 to 3
/// and five in cell 17.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells(pub Vec<u64>);

impl Cells {
    /// Runs of cells that hold as many units each, and some: first cell, last cell, units in each.
    fn runs(&self) -> Vec<(usize, usize, u64)> {
        let mut runs: Vec<(usize, usize, u64)> = Vec::new();
        for (cell, units) in self.0.iter().enumerate().filter(|(_, units)| **units > 0) {
            match runs.last_mut().filter(|(_, last, each)| last + 1 == cell && each == units) {
                Some((_, last, _)) => *last = cell,
                None => runs.push((cell, cell, *units)),
            }
        }
        runs
    }
}

impl Serialize for Cells {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for (first, last, units) in self.runs() {
            let space = if text.is_empty() { "" } else { " " };
            let _ = match first == last {
                true => write!(text, "{space}{first}:{units}"),
                false => write!(text, "{space}{first}-{last}:{units}"),
            };
        }
        serializer.serialize_str(&text)
    }
}

/// What became of the units of a volume, by place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VolumeMap {
    pub volume_bytes: u64,
    /// Units of the volume.
    pub units: u64,
    /// Units of a cell; the last cell may have fewer.
    pub cell_units: u64,
    /// Units planned, for each stage.
    pub planned: Vec<Cells>,
    /// Those of them of which something was not read, for each stage.
    pub left: Vec<Cells>,
    /// Units with blocks that could not be read, as far as these are listed.
    pub unreadable: Cells,
}

impl VolumeMap {
    /// Units of a cell, for a volume of so many.
    pub fn cell_units(units: u64) -> u64 {
        units.div_ceil(CELLS_MAX).max(1)
    }

    /// Adds the stages of another run on the same volume.
    pub fn then(&mut self, other: VolumeMap) {
        self.planned.extend(other.planned);
        self.left.extend(other.left);
        let more = &other.unreadable.0;
        self.unreadable.0.resize(self.unreadable.0.len().max(more.len()), 0);
        self.unreadable.0.iter_mut().zip(more).for_each(|(units, more)| *units += more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cells_are_told_as_runs() {
        let text = |cells: &[u64]| serde_json::to_string(&Cells(cells.to_vec())).unwrap();
        assert_eq!(text(&[1, 1, 1, 1, 0, 5, 5, 2]), r#""0-3:1 5-6:5 7:2""#);
        assert_eq!((text(&[]), text(&[0, 0])), (r#""""#.into(), r#""""#.into()));
    }

    #[test]
    fn a_volume_of_any_size_has_few_cells() {
        for units in [0u64, 1, 2048, 2049, 1_024_000, u64::MAX / 4096] {
            let cells = units.div_ceil(VolumeMap::cell_units(units));
            assert!(cells <= CELLS_MAX && (units < 2048 || cells > CELLS_MAX / 2), "{units}: {cells}");
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_there(cells in prop::collection::vec(0u64..4, 0..300)) {
            let told = serde_json::to_value(Cells(cells.clone())).unwrap();
            let mut read = vec![0; cells.len()];
            for run in told.as_str().unwrap().split_whitespace() {
                let (place, units) = run.split_once(':').unwrap();
                let (first, last) = place.split_once('-').unwrap_or((place, place));
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                read[first..=last].fill(units.parse().unwrap());
            }
            prop_assert_eq!(read, cells);
        }
    }
}
