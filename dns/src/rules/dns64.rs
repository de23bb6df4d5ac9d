//! IPv6 addresses for names that only have IPv4 addresses (RFC 6147).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::Message,
    rr::{RData, RecordType, rdata},
};
use ipnet::Ipv6Net;
use prometheus::IntCounter;

use crate::{
    ConfigError, Dns64,
    message::Question,
    metrics::RuleMetrics,
    query::Query,
    reply::{Reply, Section},
    wire::{Rcode, rtype},
};

/// The rule, ready for use.
#[derive(Debug)]
pub(crate) struct Translator {
    prefix: Ipv6Net,
    translate_all: bool,
    allow_ipv4: bool,
    translated: IntCounter,
}

impl Translator {
    pub(super) fn new(config: &Dns64, metrics: &RuleMetrics) -> Result<Self, ConfigError> {
        let prefix = config.prefix;
        // RFC 6052, 2.2.
        if ![32, 40, 48, 56, 64, 96].contains(&prefix.prefix_len()) {
            return Err(ConfigError::Dns64(prefix));
        }
        let translated = metrics.translated.clone();
        Ok(Self { prefix, translate_all: config.translate_all, allow_ipv4: config.allow_ipv4, translated })
    }

    /// Whether the answer to a query may be translated.
    pub(crate) fn applies(&self, query: &Query<'_>, client: IpAddr) -> bool {
        query.qtype == rtype::AAAA && (client.is_ipv6() || self.allow_ipv4)
    }

    /// Whether an answer lacks what a translation gives: the name exists, without a usable IPv6 address.
    pub(crate) fn lacks(&self, answer: &[u8]) -> bool {
        let Ok(message) = Message::from_vec(answer) else { return false };
        let is_there = u16::from(message.metadata.response_code) == 0 && !message.metadata.truncation;
        is_there
            && (self.translate_all || !message.answers.iter().any(|r| r.record_type() == RecordType::AAAA))
    }

    /// The question for the IPv4 addresses.
    pub(crate) fn question(&self, query: &Query<'_>) -> Vec<u8> {
        let mut question = Question::of(query);
        let at = question.wire.len() - 4;
        question.wire[at..at + 2].copy_from_slice(&rtype::A.to_be_bytes());
        question.dnssec_ok = false;
        question.message(0, None)
    }

    /// Writes the answer with the IPv4 addresses as IPv6 addresses; `None` where there are none.
    pub(crate) fn translate(&self, answer: &[u8], reply: &mut Reply<'_>) -> Option<Rcode> {
        let mut message = Message::from_vec(answer).ok()?;
        if !message.answers.iter().any(|record| record.record_type() == RecordType::A) {
            return None;
        }
        for record in &mut message.answers {
            if let RData::A(rdata::A(address)) = record.data {
                record.data = RData::AAAA(rdata::AAAA(self.embed(address)));
            }
            if !reply.foreign(Section::Answer, record) {
                break;
            }
        }
        self.translated.inc();
        Some(Rcode::NoError)
    }

    /// The address that stands for an IPv4 address: bits 64 to 71 are zero whatever the prefix.
    fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix.network().octets();
        let mut at = usize::from(self.prefix.prefix_len() / 8);
        for octet in address.octets() {
            if at == 8 {
                at += 1;
            }
            octets[at] = octet;
            at += 1;
        }
        octets.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_embedded_as_rfc_6052_shows() {
        let metrics = crate::metrics::Metrics::new().unwrap().rules;
        for (prefix, wanted) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let config = Dns64 { prefix: prefix.parse().unwrap(), ..Dns64::default() };
            let wanted: Ipv6Addr = wanted.parse().unwrap();
            assert_eq!(
                Translator::new(&config, &metrics).unwrap().embed(Ipv4Addr::new(192, 0, 2, 33)),
                wanted,
                "{prefix}"
            );
        }
        let config = Dns64 { prefix: "2001:db8::/63".parse().unwrap(), ..Dns64::default() };
        assert!(Translator::new(&config, &metrics).is_err());
    }
}
