//! EDNS options that upstreams are told with a question. They are part of the question: answers to it are kept apart
//! from those to the same question without.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    ConfigError, EdnsOption, OptionChange, OptionData, OptionWhen,
    handler::{Client, Transport},
    query::Query,
};

/// Codes of the options that have names.
const NSID: u16 = 3;
const SUBNET: u16 = 8;
/// The most bytes in an option, and in all of them.
const MAX_DATA: usize = 64;
pub(crate) const MAX_OPTIONS: usize = 128;

/// A rule, ready for use.
#[derive(Debug)]
pub(super) struct OptionRule(OptionChange);

impl OptionRule {
    pub(super) fn new(change: &OptionChange) -> Result<Self, ConfigError> {
        match &change.option {
            EdnsOption::Local { code, data: OptionData::Bytes(bytes) } if bytes.len() > MAX_DATA => {
                return Err(ConfigError::EdnsOption(*code));
            }
            EdnsOption::Subnet { v4, v6 } if *v4 > 32 || *v6 > 128 => {
                return Err(ConfigError::EdnsOption(SUBNET));
            }
            _ => {}
        }
        Ok(Self(change.clone()))
    }

    /// Adds the option to those given so far, or takes it away; `None` where the rule has nothing to do with the query.
    pub(super) fn apply(
        &self,
        query: &Query<'_>,
        name: &str,
        client: Client,
        options: &mut Vec<u8>,
    ) -> Option<()> {
        let code = match self.0.option {
            EdnsOption::Local { code, .. } => code,
            EdnsOption::Nsid => NSID,
            EdnsOption::Subnet { .. } => SUBNET,
        };
        let given = find(options, code);
        let is_there = given.is_some() || query.has_option(code);
        let applies = match self.0.when {
            OptionWhen::Set => true,
            OptionWhen::Append => !is_there,
            OptionWhen::Replace | OptionWhen::Unset => is_there,
        };
        if !applies {
            return None;
        }
        if let Some((start, end)) = given {
            options.drain(start..end);
        }
        if self.0.when != OptionWhen::Unset {
            let data = self.data(query, name, client);
            // What does not fit (the text of a long name) is left out.
            if options.len() + 4 + data.len() <= MAX_OPTIONS {
                options.extend(code.to_be_bytes());
                options.extend((data.len() as u16).to_be_bytes());
                options.extend(data);
            }
        }
        Some(())
    }

    fn data(&self, query: &Query<'_>, name: &str, client: Client) -> Vec<u8> {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        match &self.0.option {
            EdnsOption::Nsid => Vec::new(),
            EdnsOption::Subnet { v4, v6 } => {
                let (family, bits) = if client.address.is_ipv4() { (1, *v4) } else { (2, *v6) };
                let network = IpNet::new_assert(client.address, bits).network();
                let octets = octets(network);
                // RFC 7871, 6: family, bits asked, bits known (none), as many bytes as the bits take.
                let head = [0, family, bits, 0];
                [&head[..], &octets[..usize::from(bits).div_ceil(8)]].concat()
            }
            EdnsOption::Local { data, .. } => match data {
                OptionData::Bytes(bytes) => bytes.clone(),
                OptionData::QueryName => name.as_bytes().to_vec(),
                OptionData::QueryType => query.qtype.to_be_bytes().to_vec(),
                OptionData::ClientAddress => octets(client.address),
                OptionData::ClientPort => client.port.to_be_bytes().to_vec(),
                OptionData::Protocol => match client.transport {
                    Transport::Udp => b"udp".to_vec(),
                    Transport::Tcp => b"tcp".to_vec(),
                },
            },
        }
    }
}

/// Where an option of this code stands among others.
fn find(options: &[u8], code: u16) -> Option<(usize, usize)> {
    let mut at = 0;
    while let Some(&[a, b, c, d]) = options.get(at..at + 4) {
        let end = at + 4 + usize::from(u16::from_be_bytes([c, d]));
        if u16::from_be_bytes([a, b]) == code {
            return (end <= options.len()).then_some((at, end));
        }
        at = end;
    }
    None
}
