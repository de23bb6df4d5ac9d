//! Numbers over rounds: medians, ratios to a peer, a table for people and JSON for programs.
//!
//! A ratio is the median of the rounds' ratios, not the ratio of the medians: the two sides of a round were measured
//! within a second of each other, so what the machine did besides at that time counts for both.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sluice_tests::{Error, Result};

/// What was measured, a series of rounds for each case and measure.
#[derive(Debug)]
pub(crate) struct Report {
    suite: &'static str,
    series: BTreeMap<(usize, usize), Vec<Sample>>,
    round: u32,
    measures: &'static [Measure],
    cases: &'static [Case],
}

/// A value, and the round that it is of.
#[derive(Debug, Clone, Copy)]
struct Sample {
    round: u32,
    value: f64,
}

/// A kind of number.
#[derive(Debug)]
pub(crate) struct Measure {
    /// In the table and the JSON.
    pub(crate) name: &'static str,
    /// Of the values.
    pub(crate) unit: &'static str,
    /// Which of two values is the better one.
    pub(crate) better: Better,
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// The higher one: a rate.
    Higher,
    /// The lower one: a time, an amount of memory.
    Lower,
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
    peer: Option<Peer>,
}

/// What a case is held against.
#[derive(Clone, Copy)]
struct Peer {
    name: &'static str,
    value: f64,
    ratio: f64,
    /// Of the best rounds: what is left of a difference when nothing else disturbed either side.
    best_ratio: f64,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(suite: &'static str, measures: &'static [Measure], cases: &'static [Case]) -> Self {
        Self { suite, series: BTreeMap::new(), round: 0, measures, cases }
    }

    /// From here on values are of this round. Where not every round has all cases, values of different rounds are not
    /// to be compared.
    pub(crate) fn begin(&mut self, round: u32) {
        self.round = round;
    }

    /// One round's value.
    pub(crate) fn add(&mut self, case: usize, measure: usize, value: f64) {
        let sample = Sample { round: self.round, value };
        self.series.entry((measure, case)).or_default().push(sample);
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (&(measure, case), samples) in &self.series {
            let values = &of(samples);
            let Measure { name, unit, better } = self.measures[measure];
            let Case { name: what, peers } = self.cases[case];
            let row = |peer| Row {
                name: format!("{name}: {what}"),
                unit,
                value: median(values),
                best: better.best(values),
                peer,
            };
            if peers.is_empty() {
                rows.push(row(None));
            }
            for &peer in peers {
                // A peer that this is not measured of is no peer.
                let Some(theirs) = self.series.get(&(measure, peer)) else { continue };
                let (ratios, theirs) = (ratios(samples, theirs), &of(theirs));
                let name = self.cases[peer].name;
                let best_ratio = better.best(values) / better.best(theirs);
                rows.push(row(Some(Peer {
                    name,
                    value: median(theirs),
                    ratio: median(&ratios),
                    best_ratio,
                })));
            }
        }
        rows
    }

    /// The table.
    pub(crate) fn print(&self) {
        println!(
            "{:52} {:>10} {:>10} {:>7}  {:22} {:>10} {:>6} {:>10}",
            self.suite, "median", "best", "unit", "against", "median", "ratio", "best ratio"
        );
        for row in self.rows() {
            let (value, best) = (shown(row.value), shown(row.best));
            let own = format!("{:52} {value:>10} {best:>10} {:>7}", row.name, row.unit);
            match row.peer {
                None => println!("{own}"),
                Some(Peer { name, value, ratio, best_ratio }) => {
                    println!("{own}  {name:22} {:>10} {ratio:>6.3} {best_ratio:>10.3}", shown(value));
                }
            }
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
                "peer": peer.map(|peer| peer.name),
                "peer_value": peer.map(|peer| round(peer.value)),
                "ratio": peer.map(|peer| (peer.ratio * 1000.0).round() / 1000.0),
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

impl Better {
    fn best(self, values: &[f64]) -> f64 {
        match self {
            Self::Higher => values.iter().copied().fold(0.0, f64::max),
            Self::Lower => values.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }
}

/// The values.
fn of(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.value).collect()
}

/// Each value by that of the same round; of several of one round the first by the first, and so on.
fn ratios(own: &[Sample], theirs: &[Sample]) -> Vec<f64> {
    let rounds = own.chunk_by(|one, next| one.round == next.round);
    rounds
        .filter_map(|round| Some((round, round.first()?.round)))
        .flat_map(|(round, number)| {
            round.iter().zip(theirs.iter().filter(move |sample| sample.round == number))
        })
        .map(|(own, theirs)| own.value / theirs.value)
        .collect()
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
    (value * 100.0).round() / 100.0
}

/// A number for a table: whole, but for the small ones.
fn shown(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { 0 };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        const MEASURES: &[Measure] = &[Measure { name: "rate", unit: "1/s", better: Better::Higher }];
        const CASES: &[Case] = &[Case { name: "old", peers: &[] }, Case { name: "new", peers: &[0] }];
        let mut report = Report::new("suite", MEASURES, CASES);
        // In the second round the machine was busy with something else.
        for (old, new) in [(100.0, 98.0), (50.0, 48.0), (110.0, 108.9)] {
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
