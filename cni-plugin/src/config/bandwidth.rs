//! The capability `bandwidth`: how much the container may receive and send, and from and to whom.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Deserialize;
use sluice_netlink::{End, Netlink, Selection, Shape};

use crate::error::{Code, Error, Result};

/// The largest burst, in bits: what the kernel's 32-bit count of bytes can say.
const LARGEST_BURST: u64 = u32::MAX as u64 * 8;

/// How long a packet may wait in the queue, in milliseconds: what the reference plugin has.
const LATENCY: u32 = 25;

/// Rates in bits a second and bursts in bits; 0 is no limit. Ingress is what the container receives.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bandwidth {
    #[serde(default)]
    pub(super) ingress_rate: Option<u64>,
    #[serde(default)]
    pub(super) ingress_burst: Option<u64>,
    #[serde(default)]
    pub(super) egress_rate: Option<u64>,
    #[serde(default)]
    pub(super) egress_burst: Option<u64>,
    /// Only what is exchanged with these networks is limited.
    #[serde(default)]
    pub(super) shaped_subnets: Option<Vec<String>>,
    /// All but what is exchanged with these networks is limited.
    #[serde(default, alias = "nonShapedSubnets")]
    pub(super) unshaped_subnets: Option<Vec<String>>,
}

/// A limit in the kernel's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Bytes.
    pub(crate) burst: u32,
    /// What it holds for; `None` for everything.
    pub(crate) some: Option<Selection>,
}

impl Limit {
    /// The limit for a link with packets of at most `mtu` bytes.
    pub(crate) fn shape(&self, mtu: u32) -> Shape {
        Shape::new(self.rate, self.burst, LATENCY, mtu)
    }

    /// Sets it on a link that was just made.
    pub(crate) fn set(&self, netlink: &mut Netlink, index: u32, mtu: u32) -> Result<()> {
        let shape = self.shape(mtu);
        let Some(some) = &self.some else { return Ok(netlink.shape(index, &shape)?) };
        netlink.shape_some(index, &shape, some).map_err(|error| {
            if !error.is_not_found() && !error.is_unsupported() {
                return error.into();
            }
            let key = if some.inside { "shapedSubnets" } else { "unshapedSubnets" };
            let networks: Vec<_> = some.networks.iter().map(ToString::to_string).collect();
            let why = "this kernel lacks htb or u32 (CONFIG_NET_SCH_HTB, CONFIG_NET_CLS_U32)";
            let msg = format!("{key}: {} is not supported: {why}", networks.join(", "));
            Error::new(Code::UnsupportedField, msg).detail(error)
        })
    }
}

impl Bandwidth {
    /// What the container may receive. Of whom it comes is what counts.
    pub(crate) fn ingress(&self) -> Option<Limit> {
        limit(self.ingress_rate, self.ingress_burst, self.some(End::Source))
    }

    /// What it may send. To whom it goes is what counts.
    pub(crate) fn egress(&self) -> Option<Limit> {
        limit(self.egress_rate, self.egress_burst, self.some(End::Destination))
    }

    fn rates(&self) -> [Option<u64>; 4] {
        [self.ingress_rate, self.ingress_burst, self.egress_rate, self.egress_burst]
    }

    /// Whether it says anything at all.
    pub(super) fn is_said(&self) -> bool {
        *self != Self::default()
    }

    /// These, and of the `others` what is not said here: the rates as a whole, and the networks.
    pub(super) fn or(&self, others: Option<&Self>) -> Self {
        let others = others.cloned().unwrap_or_default();
        let rates = if self.rates().iter().any(Option::is_some) { self } else { &others };
        let networks =
            if self.shaped_subnets.is_some() || self.unshaped_subnets.is_some() { self } else { &others };
        Self {
            shaped_subnets: networks.shaped_subnets.clone(),
            unshaped_subnets: networks.unshaped_subnets.clone(),
            ..rates.clone()
        }
    }

    fn some(&self, end: End) -> Option<Selection> {
        let of = |networks: &Option<Vec<String>>| {
            // Checked to be networks.
            let networks = networks.iter().flatten().filter_map(|text| text.parse::<IpNet>().ok());
            IpNet::aggregate(&networks.map(|network| network.trunc()).collect()).into_iter().collect()
        };
        let (shaped, unshaped): (BTreeSet<_>, BTreeSet<_>) =
            (of(&self.shaped_subnets), of(&self.unshaped_subnets));
        match (shaped.is_empty(), unshaped.is_empty()) {
            (true, true) => None,
            (false, _) => Some(Selection { end, networks: shaped, inside: true }),
            (true, false) => Some(Selection { end, networks: unshaped, inside: false }),
        }
    }

    /// Refuses what makes no sense. `place` is what stands before the fields' names.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        for (way, rate, burst) in [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ] {
            check_rate(|name| format!("{place}{way}{name}"), rate.unwrap_or(0), burst.unwrap_or(0))?;
        }
        let lists = [("shapedSubnets", &self.shaped_subnets), ("unshapedSubnets", &self.unshaped_subnets)];
        for (name, list) in lists {
            for (index, text) in list.iter().flatten().enumerate() {
                if text.parse::<IpNet>().is_err() {
                    let msg = format!("{place}{name}[{index}]: {text:?} is not a network (as 10.0.0.0/8 is)");
                    return Err(Error::config(msg));
                }
            }
        }
        if lists.iter().all(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty())) {
            return Err(Error::config(format!(
                "{place}shapedSubnets and {place}unshapedSubnets exclude each other"
            )));
        }
        Ok(())
    }
}

fn check_rate(field: impl Fn(&str) -> String, rate: u64, burst: u64) -> Result<()> {
    let (rate_field, burst_field) = (field("Rate"), field("Burst"));
    let msg = match (rate, burst) {
        (0, 0) => return Ok(()),
        (0, _) => format!("{burst_field}: a burst without {rate_field}"),
        (_, 0) => format!("{rate_field}: a rate without {burst_field}"),
        (1..8, _) => format!("{rate_field}: {rate} is less than a byte a second"),
        (_, 1..8) => format!("{burst_field}: {burst} is less than a byte"),
        (_, burst) if burst > LARGEST_BURST => {
            format!("{burst_field}: {burst} is more than {LARGEST_BURST} bits")
        }
        _ => return Ok(()),
    };
    Err(Error::config(msg))
}

fn limit(rate: Option<u64>, burst: Option<u64>, some: Option<Selection>) -> Option<Limit> {
    let (rate, burst) = (rate.filter(|rate| *rate > 0)?, burst.unwrap_or(0));
    // Checked to fit.
    Some(Limit { rate: rate / 8, burst: u32::try_from(burst / 8).unwrap_or(u32::MAX), some })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Bandwidth> {
        let bandwidth: Bandwidth = serde_json::from_str(json).unwrap();
        bandwidth.check("x.").map(|()| bandwidth)
    }

    #[test]
    fn limits_are_in_bytes() {
        let both =
            read(r#"{"ingressRate":8000,"ingressBurst":80,"egressRate":16,"egressBurst":34359738360}"#)
                .unwrap();
        assert_eq!(both.ingress(), Some(Limit { rate: 1000, burst: 10, some: None }));
        assert_eq!(both.egress(), Some(Limit { rate: 2, burst: u32::MAX, some: None }));
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

    #[test]
    fn networks_are_those_of_the_other_end() {
        let rates = r#""ingressRate":8000,"ingressBurst":80,"egressRate":16,"egressBurst":8"#;
        let said = |limit: Option<Limit>| {
            let some = limit.unwrap().some?;
            let networks: Vec<_> = some.networks.iter().map(ToString::to_string).collect();
            Some((some.end, some.inside, networks.join(" ")))
        };
        let some = read(&format!(r#"{{{rates},"shapedSubnets":["10.1.2.3/8","fd00::/8"]}}"#)).unwrap();
        assert_eq!(said(some.ingress()), Some((End::Source, true, "10.0.0.0/8 fd00::/8".to_owned())));
        assert_eq!(said(some.egress()), Some((End::Destination, true, "10.0.0.0/8 fd00::/8".to_owned())));
        for name in ["unshapedSubnets", "nonShapedSubnets"] {
            let all_but = r#"["10.1.0.0/16","10.0.0.0/16","10.1.7.0/24"]"#;
            let but = read(&format!(r#"{{{rates},"{name}":{all_but},"shapedSubnets":[]}}"#)).unwrap();
            assert_eq!(said(but.egress()), Some((End::Destination, false, "10.0.0.0/15".to_owned())));
        }
        let all = read(&format!(r#"{{{rates},"shapedSubnets":null,"unshapedSubnets":[]}}"#)).unwrap();
        assert_eq!(said(all.ingress()), None);
    }

    #[test]
    fn networks_that_are_none_or_both_kinds_are_refused() {
        for (json, expected) in [
            (
                r#"{"shapedSubnets":["10.0.0.0/8","10.0.0.1"]}"#,
                "x.shapedSubnets[1]: \"10.0.0.1\" is not a network (as 10.0.0.0/8 is)",
            ),
            (
                r#"{"unshapedSubnets":["fd00::/129"]}"#,
                "x.unshapedSubnets[0]: \"fd00::/129\" is not a network (as 10.0.0.0/8 is)",
            ),
            (
                r#"{"shapedSubnets":["::/0"],"unshapedSubnets":["::/0"]}"#,
                "x.shapedSubnets and x.unshapedSubnets exclude each other",
            ),
        ] {
            assert_eq!(read(json).unwrap_err().msg, expected);
        }
    }
}
