//! The capability `bandwidth`: how much the container may receive and send.

use serde::Deserialize;
use sluice_netlink::Shape;

use crate::error::{Error, Result};

/// The largest burst, in bits: what the kernel's 32-bit count of bytes can say.
const LARGEST_BURST: u64 = u32::MAX as u64 * 8;

/// How long a packet may wait in the queue, in milliseconds: what the reference plugin has.
const LATENCY: u32 = 25;

/// Rates in bits a second and bursts in bits; 0 is no limit. Ingress is what the container receives.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bandwidth {
    #[serde(default)]
    ingress_rate: u64,
    #[serde(default)]
    ingress_burst: u64,
    #[serde(default)]
    egress_rate: u64,
    #[serde(default)]
    egress_burst: u64,
}

/// A limit in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Bytes.
    pub(crate) burst: u32,
}

impl Limit {
    /// The limit for a link with packets of at most `mtu` bytes.
    pub(crate) fn shape(&self, mtu: u32) -> Shape {
        Shape::new(self.rate, self.burst, LATENCY, mtu)
    }
}

impl Bandwidth {
    /// What the container may receive.
    pub(crate) fn ingress(&self) -> Option<Limit> {
        limit(self.ingress_rate, self.ingress_burst)
    }

    /// What it may send.
    pub(crate) fn egress(&self) -> Option<Limit> {
        limit(self.egress_rate, self.egress_burst)
    }

    /// Refuses what makes no sense. `place` is where in the configuration it stands.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        for (way, rate, burst) in [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ] {
            let field = |name: &str| format!("{place}.{way}{name}");
            match (rate, burst) {
                (0, 0) => {}
                (0, _) => {
                    return Err(Error::config(format!(
                        "{}: a burst without {}",
                        field("Burst"),
                        field("Rate")
                    )));
                }
                (_, 0) => {
                    return Err(Error::config(format!(
                        "{}: a rate without {}",
                        field("Rate"),
                        field("Burst")
                    )));
                }
                (1..8, _) => {
                    return Err(Error::config(format!(
                        "{}: {rate} is less than a byte a second",
                        field("Rate")
                    )));
                }
                (_, 1..8) => {
                    return Err(Error::config(format!("{}: {burst} is less than a byte", field("Burst"))));
                }
                (_, burst) if burst > LARGEST_BURST => {
                    return Err(Error::config(format!(
                        "{}: {burst} is more than {LARGEST_BURST} bits",
                        field("Burst")
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn limit(rate: u64, burst: u64) -> Option<Limit> {
    // Checked to fit.
    (rate > 0).then(|| Limit { rate: rate / 8, burst: u32::try_from(burst / 8).unwrap_or(u32::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Bandwidth> {
        let bandwidth: Bandwidth = serde_json::from_str(json).unwrap();
        bandwidth.check("x").map(|()| bandwidth)
    }

    #[test]
    fn limits_are_in_bytes() {
        let both =
            read(r#"{"ingressRate":8000,"ingressBurst":80,"egressRate":16,"egressBurst":34359738360}"#)
                .unwrap();
        assert_eq!(both.ingress(), Some(Limit { rate: 1000, burst: 10 }));
        assert_eq!(both.egress(), Some(Limit { rate: 2, burst: u32::MAX }));
        let none = read("{}").unwrap();
        assert_eq!((none.ingress(), none.egress()), (None, None));
    }

    #[test]
    fn a_rate_needs_a_burst_and_both_must_make_sense() {
        for (json, expected) in [
            (r#"{"ingressRate":8}"#, "ingressRate: a rate without x.ingressBurst"),
            (r#"{"egressBurst":8}"#, "egressBurst: a burst without x.egressRate"),
            (r#"{"egressRate":7,"egressBurst":8}"#, "egressRate: 7 is less than a byte a second"),
            (r#"{"egressRate":8,"egressBurst":7}"#, "egressBurst: 7 is less than a byte"),
            (
                r#"{"egressRate":8,"egressBurst":34359738368}"#,
                "egressBurst: 34359738368 is more than 34359738360 bits",
            ),
        ] {
            assert_eq!(read(json).unwrap_err().msg, format!("x.{expected}"));
        }
    }
}
