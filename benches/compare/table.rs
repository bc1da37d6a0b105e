//! What was measured, a value a round, and how it is shown: medians, with the least and the most behind them.

use serde_json::{Value, json};
use std::fmt::Write;

/// One line of a table: a contender, its values by column, each a value a round.
#[derive(Default)]
pub struct Row {
    pub name: String,
    pub values: Vec<Vec<f64>>,
}

/// Contenders beside each other. A value that is not a number was not measured.
pub struct Table {
    pub title: String,
    columns: Vec<&'static str>,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Table {
        Table { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A contender's turn in a round.
    pub fn add(&mut self, name: &str, values: &[f64]) {
        assert_eq!(values.len(), self.columns.len(), "{name}: a value a column");
        let known = self.rows.iter().position(|row| row.name == name);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row { name: name.into(), values: vec![Vec::new(); values.len()] });
            self.rows.len() - 1
        });
        for (column, value) in self.rows[at].values.iter_mut().zip(values) {
            column.push(*value);
        }
    }

    /// A contender's values in a column.
    pub fn values(&self, name: &str, column: &str) -> &[f64] {
        let column = self.columns.iter().position(|known| *known == column);
        let row = self.rows.iter().find(|row| row.name == name);
        match (row, column) {
            (Some(row), Some(column)) => &row.values[column],
            _ => &[],
        }
    }

    /// One contender's value over another's, round by round.
    pub fn ratios(&self, over: &str, under: &str, column: &str) -> Vec<f64> {
        let pairs = self.values(over, column).iter().zip(self.values(under, column));
        pairs.map(|(over, under)| over / under).collect()
    }

    fn text(&self) -> String {
        let mut cells = vec![std::iter::once(self.title.clone()).collect::<Vec<_>>()];
        cells[0].extend(self.columns.iter().map(|name| name.to_string()));
        for row in &self.rows {
            cells.push(
                std::iter::once(row.name.clone()).chain(row.values.iter().map(|v| spread(v))).collect(),
            );
        }
        let widths: Vec<usize> = (0..=self.columns.len())
            .map(|at| cells.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        for (number, line) in cells.iter().enumerate() {
            let shown: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(out, "| {} |", shown.join(" | "));
            if number == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                let _ = writeln!(out, "| {} |", rules.join(" | "));
            }
        }
        out
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let columns = self.columns.iter().zip(&row.values);
            let mut shown: serde_json::Map<String, Value> = columns
                .map(|(name, values)| {
                    let all = json!({"median": median(values), "rounds": values});
                    (name.to_string(), all)
                })
                .collect();
            shown.insert("name".into(), json!(row.name));
            Value::Object(shown)
        });
        json!({"title": self.title, "rows": rows.collect::<Vec<_>>()})
    }
}

/// Something that was promised, and whether it was kept; `None` where it was not measured.
pub struct Promise {
    pub text: String,
    pub met: Option<bool>,
}

impl Promise {
    pub fn new(text: impl Into<String>, met: bool) -> Promise {
        Promise { text: text.into(), met: Some(met) }
    }

    pub fn not_run(text: impl Into<String>) -> Promise {
        Promise { text: text.into(), met: None }
    }

    fn word(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "NOT RUN",
        }
    }
}

/// What a section found.
#[derive(Default)]
pub struct Found {
    pub tables: Vec<Table>,
    pub promises: Vec<Promise>,
    pub notes: Vec<String>,
}

/// A table whose slowest round took so many times as long as its fastest says more of the machine than of the
/// contenders.
const SPREAD_MAX: f64 = 2.0;

impl Found {
    /// Adds what is worth a note about the measurement itself.
    pub fn finish(&mut self) {
        let rows = self.tables.iter().flat_map(|table| table.rows.iter());
        let wide: Vec<String> = rows
            .filter(|row| {
                let first = row.values.first().map_or(&[][..], |values| values);
                let (low, high) = range(first);
                low > 0.0 && high / low > SPREAD_MAX
            })
            .map(|row| row.name.clone())
            .collect();
        if !wide.is_empty() {
            self.notes.push(format!("absurd spread, over {SPREAD_MAX} times: {}", wide.join("; ")));
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            let _ = writeln!(out, "\n{}", table.text().trim_end());
        }
        out.push('\n');
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        for promise in &self.promises {
            let _ = writeln!(out, "{}: {}", promise.word(), promise.text);
        }
        out
    }

    pub fn json(&self) -> Value {
        let promises = self.promises.iter().map(|promise| json!({"text": promise.text, "met": promise.met}));
        json!({
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "promises": promises.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

/// The middle of those that are numbers.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

/// The least and the most.
pub fn range(values: &[f64]) -> (f64, f64) {
    let known = values.iter().copied().filter(|value| !value.is_nan());
    known.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Digits that say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".into(),
        size if value.fract() == 0.0 || size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// `median (least to most)`; the value alone where there is one, or all are the same.
pub fn spread(values: &[f64]) -> String {
    let (low, high) = range(values);
    match (low, high) {
        _ if low > high => "-".into(),
        _ if low == high => number(low),
        _ => format!("{} ({} to {})", number(median(values)), number(low), number(high)),
    }
}
