//! What a comparison found, as the report draws it.

use super::rows::{REPORTED, Row};
use super::targets::{Missing, Target};
use crate::figures::{Latency, Spread};
use serde::Serialize;
use std::collections::BTreeMap;

/// All of it.
#[derive(Debug, Default, Serialize)]
pub struct Compared {
    pub about: String,
    pub targets: Vec<Server>,
    pub rows: Vec<Line>,
    pub latencies: Vec<Latencies>,
    pub missing: Vec<Missing>,
}

/// A server that was compared.
#[derive(Debug, Serialize)]
pub struct Server {
    pub name: String,
    pub label: &'static str,
    pub version: String,
    pub ours: bool,
}

/// A row.
#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub title: &'static str,
    pub about: &'static str,
    pub unit: &'static str,
    pub floor: Option<Spread>,
    pub cells: Vec<Cell>,
}

/// What a row says of a server.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub target: String,
    pub spread: Option<Spread>,
    /// Why there is none.
    pub note: String,
}

/// Latencies that can be set beside each other.
#[derive(Debug, Serialize)]
pub struct Latencies {
    pub title: String,
    pub about: String,
    pub items: Vec<Late>,
}

/// One server's, by one way.
#[derive(Debug, Serialize)]
pub struct Late {
    pub name: String,
    pub latency: Latency,
    /// Whether the chart has it; all are in the table.
    pub drawn: bool,
    /// To mosquitto's in the same round.
    pub p50_ratio: Option<Spread>,
    pub p99_ratio: Option<Spread>,
}

/// Figures while they are taken.
#[derive(Debug, Default)]
pub struct Taken {
    figures: BTreeMap<(Row, String), Vec<f64>>,
    floors: BTreeMap<Row, Vec<f64>>,
    notes: BTreeMap<(Row, String), String>,
}

impl Taken {
    pub fn add(&mut self, row: Row, target: Target, figure: f64) {
        self.figures.entry((row, target.name())).or_default().push(figure);
    }

    pub fn add_floor(&mut self, row: Row, figure: f64) {
        self.floors.entry(row).or_default().push(figure);
    }

    pub fn note(&mut self, row: Row, target: Target, note: &str) {
        self.notes.insert((row, target.name()), note.to_owned());
    }

    /// The rows of which anything is known, with a cell for each target.
    pub fn lines(&self, targets: &[Target]) -> Vec<Line> {
        let known = |row: &&Row| self.figures.keys().any(|(known, _)| known == *row);
        REPORTED.iter().filter(known).map(|&row| self.line(row, targets)).collect()
    }

    fn line(&self, row: Row, targets: &[Target]) -> Line {
        let cell = |target: &Target| {
            let key = (row, target.name());
            Cell {
                spread: self.figures.get(&key).and_then(|figures| Spread::of(figures)),
                note: self.notes.get(&key).cloned().unwrap_or_default(),
                target: key.1,
            }
        };
        Line {
            name: row.name(),
            title: row.title(),
            about: row.about(),
            unit: row.unit(),
            floor: self.floors.get(&row).and_then(|figures| Spread::of(figures)),
            cells: targets.iter().map(cell).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_every_target_and_one_of_which_nothing_is_known_is_left_out() {
        let mut taken = Taken::default();
        for figure in [3.0, 1.0, 2.0] {
            taken.add(Row::Fanout1, Target::Mosquitto, figure);
        }
        taken.add_floor(Row::Fanout1, 0.5);
        taken.note(Row::Fanout1, Target::Nats, "stalled");
        let lines = taken.lines(&[Target::Mosquitto, Target::Nats]);
        assert_eq!(lines.len(), 1);
        let cells = &lines[0].cells;
        assert_eq!(cells[0].spread.as_ref().map(|spread| spread.median), Some(2.0));
        assert_eq!((cells[1].spread.is_none(), cells[1].note.as_str()), (true, "stalled"));
        assert_eq!(lines[0].floor.as_ref().map(|spread| spread.median), Some(0.5));
    }
}
