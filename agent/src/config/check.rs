//! What a configuration may not say.

use std::time::Duration;

use sluice_model::IpFamily;

use super::{Config, ConfigError, DetectLocal};

impl Config {
    /// Whether the values can be, each and together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, problem: String| Err(ConfigError::Value { setting, problem });
        if self.node_name.is_empty() {
            return wrong("nodeName", "is empty".to_owned());
        }
        if self.bridge.is_empty() || self.bridge.len() > 15 || self.bridge.contains('/') {
            return wrong(
                "bridge",
                format!("{:?} is not a device name (1 to 15 bytes, no '/')", self.bridge),
            );
        }
        if self.uplinks.as_ref().is_some_and(Vec::is_empty) {
            return wrong("uplinks", "is an empty list; leave it out to have them found".to_owned());
        }
        if self.mtu.is_some_and(|mtu| !(1280..=65_535).contains(&mtu)) {
            return wrong("mtu", "must be 1280 to 65535: IPv6 needs 1280".to_owned());
        }
        if self.vxlan_id == 0 || self.vxlan_id >= 1 << 24 {
            return wrong("vxlanId", format!("{} is not between 1 and 16777215", self.vxlan_id));
        }
        if self.vxlan_port == 0 {
            return wrong("vxlanPort", "0 is no port".to_owned());
        }
        if self.node_port_addresses.is_empty() {
            return wrong("nodePortAddresses", "is an empty list; leave it out for the default".to_owned());
        }
        if self.detect_local == DetectLocal::ClusterCidr && self.cluster_cidrs.is_empty() {
            return wrong("detectLocal", "is clusterCIDR, and clusterCIDRs is not set".to_owned());
        }
        if self.detect_local != DetectLocal::ClusterCidr && !self.cluster_cidrs.is_empty() {
            return wrong("clusterCIDRs", "is set, and detectLocal is not clusterCIDR".to_owned());
        }
        let times = &self.flow_timeouts;
        for (setting, time) in [
            ("tcpEstablishedTimeout", times.tcp_established),
            ("tcpCloseWaitTimeout", times.tcp_half_closed),
            ("udpTimeout", times.udp),
            ("udpStreamTimeout", times.udp_stream),
        ] {
            if time < Duration::from_secs(1) {
                return wrong(setting, "is less than a second".to_owned());
            }
        }
        if self.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return wrong("oomScoreAdj", "is not between -1000 and 1000".to_owned());
        }
        if self.dns_ttl > 3600 {
            return wrong("dnsTtl", format!("{} is more than 3600 seconds", self.dns_ttl));
        }
        for (index, ip) in self.cluster_dns.iter().enumerate() {
            if self.cluster_dns[..index].iter().any(|other| IpFamily::of(*other) == IpFamily::of(*ip)) {
                return wrong("clusterDNS", format!("{ip} is the second address of its family"));
            }
        }
        Ok(())
    }
}
