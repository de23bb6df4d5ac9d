//! A pod: a namespace whose network the plugin makes, called as a container runtime calls it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{DNS_ADDRESSES, Node};
use crate::bed::Host;
use crate::command::feed;
use crate::{Error, Result, programs};

/// The version of the protocol that the pods are made with.
const CNI_VERSION: &str = "1.1.0";

/// A pod. Its namespace goes when dropped; [`Pod::delete`] does what a runtime does.
#[derive(Debug)]
pub struct Pod {
    host: Host,
    /// The node's namespace, to run the plugin in.
    node: Runtime,
    container: String,
    name: String,
    /// What the runtime adds to the configuration.
    wishes: Value,
    /// Options of the configuration besides the usual.
    options: Value,
    addresses: Vec<IpAddr>,
    wired_in: Duration,
}

/// What of the node the plugin is called with.
#[derive(Debug, Clone)]
struct Runtime {
    netns: String,
    cgroup: PathBuf,
    hostname: String,
    state: PathBuf,
}

impl Pod {
    pub(super) fn add(node: &Node, name: &str, wishes: Value, options: Value) -> Result<Self> {
        let host = node.host().bed().host_on(node.host(), name)?;
        let runtime = Runtime {
            netns: node.host().netns().to_owned(),
            cgroup: node.host().cgroup().to_owned(),
            hostname: node.name().to_owned(),
            state: node.state().to_owned(),
        };
        let [dns4, _] = DNS_ADDRESSES;
        let search = "default.svc.cluster.local svc.cluster.local cluster.local";
        host.etc("resolv.conf", &format!("nameserver {dns4}\nsearch {search}\noptions ndots:5\n"))?;
        let container = node.container_id();
        let mut pod = Self {
            host,
            node: runtime,
            container,
            name: name.to_owned(),
            wishes,
            options,
            addresses: Vec::new(),
            wired_in: Duration::ZERO,
        };
        let started = Instant::now();
        let result = pod.plugin("ADD")?;
        pod.wired_in = started.elapsed();
        let ips = result["ips"].as_array().into_iter().flatten();
        for ip in ips {
            let text = ip["address"].as_str().unwrap_or_default();
            let address = text.split('/').next().unwrap_or_default().parse();
            pod.addresses
                .push(address.map_err(|error| Error::answer(format!("the plugin's address {text}"), error))?);
        }
        Ok(pod)
    }

    /// Calls the plugin as a runtime does, and returns its result, `null` if it gave none.
    fn plugin(&self, operation: &str) -> Result<Value> {
        let program = programs::built("sluice-cni")?;
        let Runtime { netns, cgroup, hostname, .. } = &self.node;
        let mut command: Command = crate::enter::command(netns, cgroup, hostname, &program)?;
        let arguments = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", "default"),
            ("K8S_POD_NAME", &self.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.container),
        ];
        let arguments = arguments.map(|(key, value)| format!("{key}={value}")).join(";");
        command
            .env("CNI_COMMAND", operation)
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", self.host.netns_path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", arguments)
            .env("CNI_PATH", program.parent().unwrap_or(&program));
        let mut config = json!({
            "cniVersion": CNI_VERSION,
            "name": "sluice",
            "type": "sluice-cni",
            "stateDir": self.node.state,
            "runtimeConfig": self.wishes,
        });
        for (option, value) in self.options.as_object().into_iter().flatten() {
            config[option] = value.clone();
        }
        let text = feed(&mut command, &config.to_string())?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| Error::answer(format!("sluice-cni {operation}"), error))
    }

    /// Takes the pod off the network, as a runtime does when it ends.
    pub fn delete(self) -> Result<()> {
        self.plugin("DEL").map(|_| ())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its node.
    pub fn node_name(&self) -> &str {
        &self.node.hostname
    }

    /// Its namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its addresses, as the plugin gave them.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// How long the plugin took to make its network, the start of its process included.
    pub fn wired_in(&self) -> Duration {
        self.wired_in
    }

    /// Its addresses as a URL's host: IPv6 in brackets.
    pub fn url_hosts(&self) -> Vec<String> {
        let host =
            |address: &IpAddr| if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        self.addresses.iter().map(host).collect()
    }

    /// Fetches a URL; what came, or the error as text.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.host.curl(url)
    }
}
