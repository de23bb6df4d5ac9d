//! One attachment's record.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sluice_ebpf_common::{ENDPOINT_BRIDGED, ENDPOINT_SHAPED, Endpoint};
use sluice_netlink::MacAddress;

use super::HostPort;

/// Version of the record's fields.
pub(crate) const VERSION: u32 = 1;

/// How far an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum State {
    /// Being made; parts of it may be missing.
    Adding,
    /// Complete, and reported to the runtime.
    Ready,
    /// Being taken apart.
    Deleting,
}

impl From<State> for u8 {
    fn from(state: State) -> Self {
        match state {
            State::Adding => 0,
            State::Ready => 1,
            State::Deleting => 2,
        }
    }
}

impl TryFrom<u8> for State {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Self::Adding),
            1 => Ok(Self::Ready),
            2 => Ok(Self::Deleting),
            other => Err(format!("state {other} is unknown")),
        }
    }
}

/// The pod that an attachment belongs to, as the runtime told it in `CNI_ARGS`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`, where the runtime gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What the plugin knows about an attachment: all that is needed to take it apart again, and for the agent to
/// adopt it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// How far it is. First, so that it stands at a known place in the file and changes by one byte.
    pub state: State,
    /// Version of these fields.
    pub version: u32,
    /// The container's id, from the runtime.
    pub container_id: String,
    /// The name of the interface in the container.
    pub ifname: String,
    /// The network's name, from the configuration.
    pub network: String,
    /// The path of the container's network namespace.
    pub netns: PathBuf,
    /// The pod, where the runtime named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its addresses, with the length of their network's prefix; the first of each family is the pod's own.
    pub addresses: Vec<IpNet>,
    /// The name of the node's end of its veth pair.
    pub host_veth: String,
    /// The address of the pod's own end.
    #[serde(with = "mac_text")]
    pub mac: MacAddress,
    /// The bridge it is a port of.
    pub bridge: String,
    /// The address of the bridge, or of what has the gateway's addresses in its place: where packets to the pod come
    /// from.
    #[serde(with = "mac_text")]
    pub gateway_mac: MacAddress,
    /// The device that has the gateway's addresses, where that is not the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_device: Option<String>,
    /// The directory in which the datapath is pinned.
    pub bpffs: PathBuf,
    /// The ports of the node that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// Whether those who come by these ports are masqueraded, all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masquerade: bool,
    /// Who may use these ports over IPv4, in the words of the configuration; empty, where everybody may. Ports that not
    /// everybody may use are the kernel's packet filter's, and not the datapath's.
    #[serde(default, rename = "conditionsV4", skip_serializing_if = "Vec::is_empty")]
    pub conditions_v4: Vec<String>,
    /// The same over IPv6.
    #[serde(default, rename = "conditionsV6", skip_serializing_if = "Vec::is_empty")]
    pub conditions_v6: Vec<String>,
    /// Names by which others want to find it, as the runtime gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whether what it receives is limited, by the queue of its host veth.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shaped: bool,
    /// Whether it is the bridge's to say whom it reaches: an isolated port, one of a VLAN, or one of whom the packet
    /// filter translates connections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bridged: bool,
}

impl Attachment {
    /// The name of the device that has the gateway's addresses.
    pub fn gateway_device(&self) -> &str {
        self.gateway_device.as_deref().unwrap_or(&self.bridge)
    }

    /// The entry of each of its addresses in the datapath, with the index of its host veth.
    pub fn endpoint(&self, ifindex: u32) -> Endpoint {
        Endpoint {
            ifindex,
            flags: if self.shaped { ENDPOINT_SHAPED } else { 0 }
                | if self.bridged { ENDPOINT_BRIDGED } else { 0 },
            pod_mac: self.mac.0,
            gateway_mac: self.gateway_mac.0,
            pad: 0,
        }
    }

    /// The record as it stands in its file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Plain strings and numbers: there is nothing in it that JSON cannot say.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// Where in the file the state's digit stands: after `{"state":`.
pub(crate) const STATE_OFFSET: u64 = 9;

/// MAC addresses as text.
mod mac_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use sluice_netlink::MacAddress;

    pub(super) fn serialize<S: Serializer>(mac: &MacAddress, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacAddress, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_stands_where_it_is_changed() {
        let mut record = crate::store::tests::attachment("c1");
        let mut bytes = record.to_bytes();
        bytes[STATE_OFFSET as usize] = b'2';
        record.state = State::Deleting;
        assert_eq!(serde_json::from_slice::<Attachment>(&bytes).unwrap(), record);
    }
}
