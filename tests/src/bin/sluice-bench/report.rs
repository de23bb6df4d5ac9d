//! Numbers over rounds: medians, ratios to a peer, a table for people and JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sluice_tests::{Error, Result};

/// What was measured, a series of rounds for each case and measure.
#[derive(Debug)]
pub(crate) struct Report {
    suite: &'static str,
    series: BTreeMap<(usize, usize), Vec<f64>>,
    measures: &'static [Measure],
    cases: &'static [Case],
}

/// A kind of number.
#[derive(Debug)]
pub(crate) struct Measure {
    /// In the table and the JSON.
    pub(crate) name: &'static str,
    /// Of the values.
    pub(crate) unit: &'static str,
}

/// A way of doing the measured thing, compared to others by their places in the list of cases.
#[derive(Debug)]
pub(crate) struct Case {
    /// In the table and the JSON.
    pub(crate) name: &'static str,
    /// The cases it is held against.
    pub(crate) peers: &'static [usize],
}

/// One comparison, or a case's own number if it has no peer.
struct Row {
    name: String,
    unit: &'static str,
    value: f64,
    best: f64,
    peer: Option<(&'static str, f64)>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(suite: &'static str, measures: &'static [Measure], cases: &'static [Case]) -> Self {
        Self { suite, series: BTreeMap::new(), measures, cases }
    }

    /// One round's value.
    pub(crate) fn add(&mut self, case: usize, measure: usize, value: f64) {
        self.series.entry((measure, case)).or_default().push(value);
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (&(measure, case), values) in &self.series {
            let Measure { name, unit } = self.measures[measure];
            let Case { name: what, peers } = self.cases[case];
            let row = |peer| Row {
                name: format!("{name}: {what}"),
                unit,
                value: median(values),
                best: values.iter().copied().fold(0.0, f64::max),
                peer,
            };
            if peers.is_empty() {
                rows.push(row(None));
            }
            for &peer in peers {
                let theirs = self.series.get(&(measure, peer)).map_or(f64::NAN, |values| median(values));
                rows.push(row(Some((self.cases[peer].name, theirs))));
            }
        }
        rows
    }

    /// The table.
    pub(crate) fn print(&self) {
        println!(
            "{:58} {:>12} {:>12} {:>8}  {:28} {:>12} {:>6}",
            self.suite, "median", "best", "unit", "against", "median", "ratio"
        );
        for row in self.rows() {
            let (peer, theirs, ratio) =
                row.peer.map_or((String::new(), String::new(), String::new()), |(peer, theirs)| {
                    (peer.to_owned(), format!("{theirs:.0}"), format!("{:.3}", row.value / theirs))
                });
            println!(
                "{:58} {:>12.0} {:>12.0} {:>8}  {peer:28} {theirs:>12} {ratio:>6}",
                row.name, row.value, row.best, row.unit
            );
        }
    }

    /// The list of numbers.
    pub(crate) fn json(&self) -> Vec<Value> {
        let rows = self.rows().into_iter().map(|row| {
            let peer = row.peer;
            json!({
                "suite": self.suite,
                "name": row.name,
                "value": round(row.value),
                "unit": row.unit,
                "peer": peer.map(|(name, _)| name),
                "peer_value": peer.map(|(_, value)| round(value)),
                "ratio": peer.map(|(_, value)| (row.value / value * 1000.0).round() / 1000.0),
            })
        });
        rows.collect()
    }
}

/// Writes the numbers of all suites to a file.
pub(crate) fn write(path: &Path, reports: &[Report]) -> Result<()> {
    let all: Vec<Value> = reports.iter().flat_map(Report::json).collect();
    let text = serde_json::to_string_pretty(&all).map_err(|error| Error::answer("the numbers", error))?;
    std::fs::write(path, text + "\n").map_err(Error::file("write", path))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_medians() {
        const MEASURES: &[Measure] = &[Measure { name: "rate", unit: "1/s" }];
        const CASES: &[Case] = &[Case { name: "old", peers: &[] }, Case { name: "new", peers: &[0] }];
        let mut report = Report::new("suite", MEASURES, CASES);
        for (old, new) in [(100.0, 98.0), (90.0, 1.0), (110.0, 150.0)] {
            report.add(0, 0, old);
            report.add(1, 0, new);
        }
        let expected = json!({
            "suite": "suite", "name": "rate: new", "value": 98.0, "unit": "1/s",
            "peer": "old", "peer_value": 100.0, "ratio": 0.98,
        });
        assert_eq!(report.json()[1], expected);
    }
}
