//! Who may ask what.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{domains, is_among};
use crate::{AclAction, AclRule, ConfigError, name::WireName, query::Query};

/// A rule, ready for use.
#[derive(Debug)]
pub(super) struct Rule {
    /// What becomes of queries that match.
    pub(super) action: AclAction,
    zones: Vec<WireName>,
    types: Vec<u16>,
    networks: Vec<IpNet>,
}

impl Rule {
    pub(super) fn new(rule: &AclRule) -> Result<Self, ConfigError> {
        Ok(Self {
            action: rule.action,
            zones: domains(&rule.zones)?,
            types: rule.types.clone(),
            networks: rule.networks.clone(),
        })
    }

    pub(super) fn matches(&self, query: &Query<'_>, client: IpAddr) -> bool {
        let is_type = self.types.is_empty() || self.types.contains(&query.qtype);
        let is_from = self.networks.is_empty() || self.networks.iter().any(|net| net.contains(&client));
        is_type && is_from && is_among(&query.name, &self.zones)
    }
}
