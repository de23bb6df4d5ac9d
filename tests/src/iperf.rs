//! Rates over TCP, as iperf3 measures them.

use serde_json::Value;

use crate::bed::Host;
use crate::{Error, Result};

/// Megabits a second of payload that the server received. `options` say how long, and to whom.
///
/// An error also where iperf3 ends well and tells of one in its answer, as it does with a server that does not listen
/// yet or that has another client: to be tried again.
pub fn megabits(client: &Host, options: &[&str]) -> Result<f64> {
    received(&client.succeed("iperf3", &[&["--json"], options].concat())?)
}

fn received(answer: &str) -> Result<f64> {
    let answer: Value = serde_json::from_str(answer).map_err(|error| Error::answer("iperf3", error))?;
    if let Some(error) = answer["error"].as_str() {
        return Err(Error::answer("iperf3", error));
    }
    let bits = answer["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.map(|bits| bits / 1e6)
        .ok_or_else(|| Error::answer("iperf3", format!("no rate in its answer: {answer}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_tells_of_an_error_is_one() {
        let refused =
            r#"{"start": {}, "end": {}, "error": "unable to connect to server: Connection refused"}"#;
        let error = received(refused).unwrap_err().to_string();
        assert_eq!(error, "iperf3: unable to connect to server: Connection refused");
        let cut = r#"{"start": {}, "end": {"sum_sent": {"bits_per_second": 5.0}}}"#;
        assert!(received(cut).unwrap_err().to_string().contains("no rate in its answer: {"));
        let whole = r#"{"end": {"sum_received": {"bits_per_second": 28.5e6}}}"#;
        assert!((received(whole).unwrap() - 28.5).abs() < 1e-9);
    }
}
