//! What ADD reports, in the words of each version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_netlink::MacAddress;

use crate::{
    config::{Dns, RouteConfig},
    version::Version,
};

/// An interface of the attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
    /// The container's namespace; `None` on the node.
    pub(crate) sandbox: Option<String>,
}

/// An address of the container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: IpNet,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
}

/// What ADD did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddResult {
    /// The bridge, the node's end, the container's end, and the gateway's device if that is not the bridge.
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
}

impl AddResult {
    /// The result in the format of a version, added to that of the plugins before us, if there were any.
    pub(crate) fn to_json(&self, version: Version, previous: Option<&Value>) -> Value {
        let mut result =
            if version < Version::V0_3_0 { self.before_0_3() } else { self.since_0_3(version, previous) };
        result["cniVersion"] = version.to_string().into();
        result
    }

    /// 0.1.0 and 0.2.0 know one address of each family.
    fn before_0_3(&self) -> Value {
        let mut result = json!({ "dns": self.dns });
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            if let Some(first) = self.addresses.iter().find(|ip| ip.address.addr().is_ipv4() == v4) {
                let routes = self.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
                let routes: Vec<_> = routes.map(|route| route_json(route, Version::V0_3_0)).collect();
                result[key] = json!({ "ip": first.address, "routes": routes });
                if let Some(gateway) = first.gateway {
                    result[key]["gateway"] = gateway.to_string().into();
                }
            }
        }
        result
    }

    fn since_0_3(&self, version: Version, previous: Option<&Value>) -> Value {
        let before =
            |key: &str| previous.and_then(|value| value.get(key)?.as_array().cloned()).unwrap_or_default();
        let mut interfaces = before("interfaces");
        let own =
            self.interfaces.iter().position(|interface| interface.sandbox.is_some()).unwrap_or_default();
        let own = interfaces.len() + own;
        let mut ips = before("ips");
        let mut routes = before("routes");
        interfaces.extend(self.interfaces.iter().map(|interface| {
            let mut entry = json!({ "name": interface.name, "mac": interface.mac.to_string() });
            if let Some(sandbox) = &interface.sandbox {
                entry["sandbox"] = sandbox.as_str().into();
            }
            if version >= Version::V1_1_0 {
                entry["mtu"] = interface.mtu.into();
            }
            entry
        }));
        ips.extend(self.addresses.iter().map(|ip| {
            let mut entry = json!({ "address": ip.address, "interface": own });
            if let Some(gateway) = ip.gateway {
                entry["gateway"] = gateway.to_string().into();
            }
            if version < Version::V1_0_0 {
                entry["version"] = if ip.address.addr().is_ipv4() { "4" } else { "6" }.into();
            }
            entry
        }));
        routes.extend(self.routes.iter().map(|route| route_json(route, version)));
        let mut dns = json!(self.dns);
        if let Some(before) =
            previous.and_then(|value| value.get("dns")).filter(|_| self.dns == Dns::default())
        {
            dns = before.clone();
        }
        json!({ "interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns })
    }
}

fn route_json(route: &RouteConfig, version: Version) -> Value {
    let mut entry = json!({ "dst": route.dst });
    if let Some(gw) = route.gw {
        entry["gw"] = gw.to_string().into();
    }
    if version >= Version::V1_1_0 {
        let numbers = [
            ("mtu", route.mtu),
            ("advmss", route.advmss),
            ("priority", route.priority),
            ("table", route.table),
            ("scope", route.scope.map(u32::from)),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                entry[key] = value.into();
            }
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> AddResult {
        let interface = |name: &str, sandbox: Option<&str>| Interface {
            name: name.to_owned(),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
            sandbox: sandbox.map(str::to_owned),
        };
        AddResult {
            interfaces: vec![
                interface("sluice0", None),
                interface("sluice1", None),
                interface("eth0", Some("/n")),
            ],
            addresses: vec![
                Address {
                    address: "10.1.0.2/24".parse().unwrap(),
                    gateway: Some("10.1.0.1".parse().unwrap()),
                },
                Address { address: "fd00::2/64".parse().unwrap(), gateway: None },
            ],
            routes: vec![RouteConfig {
                mtu: Some(1400),
                table: Some(100),
                ..RouteConfig::new("0.0.0.0/0".parse().unwrap(), Some("10.1.0.1".parse().unwrap()))
            }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn each_version_gets_its_own_words() {
        let sample = sample();
        let v02 = sample.to_json(Version(0, 2, 0), None);
        assert_eq!(
            v02,
            json!({
                "cniVersion": "0.2.0",
                "ip4": { "ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{ "dst": "0.0.0.0/0", "gw": "10.1.0.1" }] },
                "ip6": { "ip": "fd00::2/64", "routes": [] },
                "dns": {},
            })
        );
        let v04 = sample.to_json(Version::V0_4_0, None);
        assert_eq!(v04["ips"][1], json!({ "version": "6", "address": "fd00::2/64", "interface": 2 }));
        assert_eq!(v04["interfaces"][0], json!({ "name": "sluice0", "mac": "02:00:00:00:00:01" }));
        let v10 = sample.to_json(Version::V1_0_0, None);
        assert_eq!(v10["ips"][0], json!({ "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2 }));
        assert_eq!(v10["routes"][0], json!({ "dst": "0.0.0.0/0", "gw": "10.1.0.1" }));
        let v11 = sample.to_json(Version::V1_1_0, None);
        assert_eq!(
            v11["interfaces"][2],
            json!({ "name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1450, "sandbox": "/n" })
        );
        assert_eq!(
            v11["routes"][0],
            json!({ "dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "table": 100 })
        );
    }

    #[test]
    fn what_plugins_before_us_did_is_passed_on_in_front() {
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "x0" }],
            "ips": [{ "address": "192.0.2.1/32", "interface": 0 }],
            "dns": { "nameservers": ["192.0.2.53"] },
        });
        let result = sample().to_json(Version::V1_0_0, Some(&previous));
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 4);
        assert_eq!(result["interfaces"][0], json!({ "name": "x0" }));
        assert_eq!(result["ips"][0]["address"], "192.0.2.1/32");
        assert_eq!(result["ips"][1]["interface"], 3);
        // A gateway with a device of its own comes last, and does not move the container's place.
        let mut vlan = sample();
        vlan.interfaces.push(Interface {
            name: "sluice0.9".to_owned(),
            sandbox: None,
            ..vlan.interfaces[0].clone()
        });
        let result = vlan.to_json(Version::V1_0_0, Some(&previous));
        assert_eq!(result["interfaces"][4]["name"], "sluice0.9");
        assert_eq!(result["ips"][1]["interface"], 3);
        assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
    }
}
