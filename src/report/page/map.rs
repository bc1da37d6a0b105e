//! A volume as cells, and what became of each: filled from below by how much of it which layer has.
//!
//! Holds: a layer that has something of a cell is seen in it, however little it is.

use super::html::Html;
use super::svg::{count, n};
use crate::report::CELLS_MAX;
use std::fmt::Write;

/// Side of a cell.
const SIDE: u64 = 10;
/// Colours there are; more layers begin again with the first.
pub const CLASSES: [&str; 7] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6"];

/// Something that has a part of the volume.
#[derive(Debug)]
pub struct Layer {
    pub name: String,
    /// When, how much.
    pub note: String,
    pub class: &'static str,
    /// Units of it, for each cell.
    pub cells: Vec<u64>,
}

/// A volume, with what became of it.
#[derive(Debug)]
pub struct Drawing {
    /// Units of each cell.
    pub capacity: Vec<u64>,
    pub layers: Vec<Layer>,
    /// Of these, units that were not read.
    pub left: Vec<u64>,
    /// Units that cannot be read.
    pub unreadable: Vec<u64>,
    /// Whether what a layer has stays for those after it: then the maps fill up.
    pub fills_up: bool,
    /// What a cell is, in words.
    pub cell: String,
    /// What the empty ones are.
    pub empty: &'static str,
}

/// Units of each cell of a volume of so many.
pub fn capacity(units: u64, cell_units: u64) -> Vec<u64> {
    let cells = units.div_ceil(cell_units.max(1)).min(CELLS_MAX);
    (0..cells).map(|cell| cell_units.min(units - cell * cell_units)).collect()
}

impl Drawing {
    fn columns(&self) -> u64 {
        match self.capacity.len() {
            0..=128 => 16,
            129..=512 => 32,
            _ => 64,
        }
    }

    fn view(&self) -> String {
        let rows = (self.capacity.len() as u64).div_ceil(self.columns()).max(1);
        format!("0 0 {} {}", self.columns() * SIDE, rows * SIDE)
    }

    /// From what to what height each layer fills each cell, what was not read last.
    fn heights(&self) -> Vec<Vec<(u64, u64)>> {
        let all: Vec<&Vec<u64>> = self.layers.iter().map(|layer| &layer.cells).chain([&self.left]).collect();
        let mut heights = vec![vec![(0, 0); self.capacity.len()]; all.len()];
        for (cell, capacity) in self.capacity.iter().enumerate() {
            let units: Vec<u64> = all.iter().map(|cells| cells.get(cell).copied().unwrap_or(0)).collect();
            let mut from = 0;
            for (layer, tall) in shares(&units, *capacity).into_iter().enumerate() {
                heights[layer][cell] = (from, from + tall);
                from += tall;
            }
        }
        heights
    }

    /// Rectangles of so high, those beside each other in a row as one.
    fn path(&self, heights: &[(u64, u64)]) -> String {
        let columns = self.columns() as usize;
        let (mut path, mut cell) = (String::new(), 0);
        while cell < heights.len() {
            let (from, to) = heights[cell];
            let row_end = (cell / columns + 1) * columns;
            let same =
                heights[cell..heights.len().min(row_end)].iter().take_while(|other| **other == (from, to));
            let run = same.count();
            if to > from {
                let (x, y) = ((cell % columns) as u64 * SIDE, (cell / columns) as u64 * SIDE + SIDE - to);
                let wide = run as u64 * SIDE;
                let _ = write!(path, "M{x} {y}h{wide}v{}h-{wide}z", to - from);
            }
            cell += run;
        }
        path
    }

    /// A cross over each cell.
    fn crosses(&self, cells: &[u64]) -> String {
        let (columns, mut path) = (self.columns() as usize, String::new());
        for cell in cells.iter().enumerate().filter(|(_, units)| **units > 0).map(|(cell, _)| cell) {
            let (x, y) = ((cell % columns) as u64 * SIDE, (cell / columns) as u64 * SIDE);
            let _ = write!(path, "M{} {}l12 12m0-12l-12 12", n(x as f64 - 1.0), n(y as f64 - 1.0));
        }
        path
    }

    /// The whole, its legend, and the layers one by one.
    pub fn draw(&self, html: &mut Html) {
        let heights = self.heights();
        let words: Vec<String> =
            self.layers.iter().map(|layer| format!("{}: {}", layer.name, layer.note)).collect();
        let words = format!("Map of the volume. {}.", words.join("; "));
        let view = self.view();
        let attributes =
            [("id", "map"), ("class", "map"), ("viewBox", &*view), ("role", "img"), ("aria-label", &words)];
        html.nest("svg", &attributes, |html| self.whole(html, &heights));
        self.legend(html);
        if self.layers.len() > 1 {
            html.open("div", &[("class", "maps")]);
            (0..self.layers.len()).for_each(|at| self.step(html, at, &view));
            html.close("div");
        }
    }

    fn whole(&self, html: &mut Html, heights: &[Vec<(u64, u64)>]) {
        html.raw(
            "<defs><pattern id=\"grid\" width=\"10\" height=\"10\" patternUnits=\"userSpaceOnUse\">\
             <path d=\"M0 .5h10M.5 0v10\"/></pattern>\
             <pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
             patternTransform=\"rotate(45)\"><path d=\"M0 0v5\"/></pattern></defs>",
        );
        let full: Vec<(u64, u64)> = self.capacity.iter().map(|_| (0, SIDE)).collect();
        html.void("path", &[("id", "none"), ("class", "none"), ("d", &self.path(&full))]);
        for (at, (layer, heights)) in self.layers.iter().zip(heights).enumerate() {
            let attributes = [
                ("id", &*format!("layer{at}")),
                ("class", &format!("fill {}", layer.class)),
                ("d", &self.path(heights)),
            ];
            html.nest("path", &attributes, |html| {
                html.leaf("title", &[], &format!("{}: {}", layer.name, layer.note));
            });
        }
        let left = heights.last().map_or_else(String::new, |heights| self.path(heights));
        if !left.is_empty() {
            html.void("path", &[("id", "left"), ("class", "left"), ("d", &left)]);
        }
        html.raw("<rect id=\"lines\" class=\"lines\" width=\"100%\" height=\"100%\"/>");
        let crosses = self.crosses(&self.unreadable);
        if !crosses.is_empty() {
            html.void("path", &[("id", "unreadable"), ("class", "cross"), ("d", &crosses)]);
        }
    }

    fn legend(&self, html: &mut Html) {
        let entry = |html: &mut Html, class: &str, name: &str, note: &str| {
            html.open("li", &[]);
            html.leaf("span", &[("class", &format!("key {class}")), ("aria-hidden", "true")], "");
            html.leaf("b", &[], name).raw(" ").text(note).close("li");
        };
        html.open("ul", &[("class", "legend")]);
        for layer in &self.layers {
            entry(html, layer.class, &layer.name, &layer.note);
        }
        let (left, bad): (u64, u64) = (self.left.iter().sum(), self.unreadable.iter().sum());
        if left > 0 {
            entry(html, "left", "not read", &format!("{} units", count(left)));
        }
        if bad > 0 {
            entry(html, "cross", "unreadable", &format!("{} units, each cell crossed", count(bad)));
        }
        entry(html, "none", self.empty, "");
        html.close("ul").leaf("p", &[("class", "soft")], &self.cell);
    }

    /// A layer, with those below it where they stay.
    fn step(&self, html: &mut Html, at: usize, view: &str) {
        let layer = &self.layers[at];
        let after = if self.fills_up { "after " } else { "" };
        html.open("figure", &[]);
        let words = format!("Map {after}{}: {}", layer.name, layer.note);
        html.nest(
            "svg",
            &[("class", "map"), ("viewBox", view), ("role", "img"), ("aria-label", &words)],
            |html| {
                html.raw("<use href=\"#none\"/>");
                for below in if self.fills_up { 0 } else { at }..=at {
                    html.void("use", &[("href", &format!("#layer{below}"))]);
                }
                html.raw("<use href=\"#lines\"/>");
            },
        );
        html.open("figcaption", &[]);
        html.text(after).leaf("b", &[], &layer.name).raw(" ").text(&layer.note);
        html.close("figcaption").close("figure");
    }
}

/// How high each layer stands in a cell: by its share, two at the least where it has anything.
fn shares(units: &[u64], capacity: u64) -> Vec<u64> {
    let present = units.iter().filter(|units| **units > 0).count() as u64;
    let least = if present * 2 <= SIDE { 2 } else { 1 };
    let tall = |units: u64| match units {
        0 => 0,
        some => ((some * SIDE + capacity / 2) / capacity.max(1)).clamp(least, SIDE),
    };
    let mut heights: Vec<u64> = units.iter().map(|units| tall(*units)).collect();
    // What is too much is taken from the highest.
    while heights.iter().sum::<u64>() > SIDE {
        let Some(highest) = heights.iter_mut().max_by_key(|height| **height) else { break };
        *highest -= 1;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawing(capacity: Vec<u64>, layers: Vec<Vec<u64>>) -> Drawing {
        let layer = |cells| Layer { name: "a".into(), note: String::new(), class: "s0", cells };
        Drawing {
            capacity,
            layers: layers.into_iter().map(layer).collect(),
            left: Vec::new(),
            unreadable: vec![0, 1],
            fills_up: true,
            cell: String::new(),
            empty: "not asked for",
        }
    }

    #[test]
    fn cells_beside_each_other_are_one_rectangle() {
        let drawing = drawing(vec![1; 40], vec![vec![1; 20]]);
        let heights = drawing.heights();
        assert_eq!(drawing.path(&heights[0]), "M0 0h160v10h-160zM0 10h40v10h-40z");
        assert_eq!(drawing.view(), "0 0 160 30");
        assert_eq!(drawing.crosses(&drawing.unreadable), "M9 -1l12 12m0-12l-12 12");
    }

    #[test]
    fn layers_of_one_cell_stand_on_each_other() {
        let drawing = drawing(vec![100], vec![vec![30], vec![1], vec![50]]);
        let heights: Vec<(u64, u64)> = drawing.heights().iter().map(|layer| layer[0]).collect();
        assert_eq!(heights, [(0, 3), (3, 5), (5, 10), (10, 10)]);
        assert_eq!(capacity(1_024_000, 500).len(), 2048);
        assert_eq!(capacity(5, 2), [2, 2, 1]);
        assert!(capacity(0, 0).is_empty());
    }

    proptest! {
        #[test]
        fn a_layer_that_has_something_is_seen_and_none_is_outside(units in prop::collection::vec(0u64..1000, 1..9)) {
            let capacity = units.iter().sum::<u64>().max(1);
            let heights = shares(&units, capacity);
            prop_assert!(heights.iter().sum::<u64>() <= SIDE);
            for (units, height) in units.iter().zip(&heights) {
                prop_assert_eq!(*units > 0, *height > 0);
            }
        }
    }
}
