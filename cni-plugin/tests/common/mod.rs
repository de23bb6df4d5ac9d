//! A node to run the plugin on: a network namespace without a name, a state directory, and the real binary run
//! as a runtime would run it. All of it goes with the value.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails loudly, in its helpers too"
)]

pub(crate) mod datapath;

use std::{
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Value, json};
use sluice_netlink::{AddressFlags, Namespace, Netlink, RouteFilter, VethEnd};
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) directory: TempDir,
}

/// A container: a namespace that the runtime made.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) namespace: Namespace,
}

impl Pod {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), namespace: Namespace::create().unwrap() }
    }

    /// A path for `CNI_NETNS` that needs no mount.
    pub(crate) fn path(&self) -> PathBuf {
        let fd = self.namespace.as_fd().as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id()))
    }

    pub(crate) fn netlink(&self) -> Netlink {
        self.namespace.netlink().unwrap()
    }
}

/// What the plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn from(output: &Output) -> Self {
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let json = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).expect("the answer is one JSON value")
        };
        Self { success: output.status.success(), json }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.success, "{}", self.json);
        self.json
    }

    /// The error's number and words.
    #[track_caller]
    pub(crate) fn error(self) -> (u64, String) {
        assert!(!self.success, "it succeeded: {}", self.json);
        (self.json["code"].as_u64().unwrap(), self.json["msg"].as_str().unwrap().to_owned())
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.json["ips"].as_array().unwrap();
        ips.iter()
            .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap())
            .collect()
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { namespace: Namespace::create().unwrap(), directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn state_dir(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn netlink(&self) -> Netlink {
        self.namespace.netlink().unwrap()
    }

    /// A host outside, at 192.0.2.2 and 2001:db8::2, on a wire to the node, which is .1 and ::1. It knows no way to pods.
    pub(crate) fn outside(&self) -> Namespace {
        let outside = Namespace::create().unwrap();
        let mut netlink = self.netlink();
        netlink.set_up(1).unwrap();
        let far = VethEnd::new("wire").namespace(&outside).up();
        netlink.create_veth(&VethEnd::new("wire").up(), &far).unwrap();
        let nodad = AddressFlags { nodad: true, ..AddressFlags::default() };
        for (namespace, last) in [(&self.namespace, 1), (&outside, 2)] {
            let mut netlink = namespace.netlink().unwrap();
            let index = netlink.link("wire").unwrap().index;
            for address in [format!("192.0.2.{last}/24"), format!("2001:db8::{last}/64")] {
                netlink.add_address(index, address.parse().unwrap(), nodad).unwrap();
            }
        }
        outside
    }

    /// A dual-stack configuration with these fields on top.
    pub(crate) fn config(&self, more: Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "sluice-cni",
            "stateDir": self.state_dir(),
            "bpffs": self.state_dir().join("no-bpffs"),
            "ipam": { "ranges": [[{ "subnet": "10.77.0.0/24" }], [{ "subnet": "fd77::/64" }]] },
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    pub(crate) fn command(&self, command: &str, id: &str, netns: Option<&Path>) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_sluice-cni"));
        process.env_clear().env("CNI_COMMAND", command).env("CNI_PATH", "/opt/cni/bin");
        if !id.is_empty() {
            process.env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0");
        }
        if let Some(netns) = netns {
            process.env("CNI_NETNS", netns);
        }
        process.env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={id};K8S_POD_INFRA_CONTAINER_ID={id}"
            ),
        );
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process
    }

    /// Runs a command in the node's namespace with `stdin`.
    pub(crate) fn run(&self, mut command: Command, stdin: &str) -> Output {
        self.namespace
            .run(move || {
                let mut child = command.spawn().unwrap();
                // A plugin that fails before it reads closes the pipe; that is its business.
                let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
                child.wait_with_output().unwrap()
            })
            .unwrap()
    }

    pub(crate) fn call(&self, command: &str, pod: &Pod, config: &Value) -> Answer {
        let command = self.command(command, &pod.id, Some(&pod.path()));
        Answer::from(&self.run(command, &config.to_string()))
    }

    pub(crate) fn add(&self, pod: &Pod, config: &Value) -> Answer {
        self.call("ADD", pod, config)
    }

    pub(crate) fn del(&self, pod: &Pod, config: &Value) -> Answer {
        self.call("DEL", pod, config)
    }

    /// GC, with these containers' `eth0` valid.
    pub(crate) fn gc(&self, config: &Value, valid: &[&str]) -> Answer {
        let mut config = config.clone();
        let valid: Vec<_> = valid.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect();
        config["cni.dev/valid-attachments"] = valid.into();
        Answer::from(&self.run(self.command("GC", "", None), &config.to_string()))
    }

    /// STATUS.
    pub(crate) fn status(&self, config: &Value) -> Answer {
        Answer::from(&self.run(self.command("STATUS", "", None), &config.to_string()))
    }

    /// Everything that an attachment could leave on the node, as text: links, addresses, routes, neighbours that
    /// somebody entered, and the names of all files.
    pub(crate) fn inventory(&self) -> Vec<String> {
        let mut netlink = self.netlink();
        let mut list = Vec::new();
        for route in netlink.routes(&RouteFilter::default()).unwrap() {
            // Those to a link itself and to groups come when the kernel has made sure of a device's own address.
            let to = route.destination;
            let own = matches!(to, IpNet::V6(v6) if v6.network().is_unicast_link_local());
            if !own && !to.network().is_multicast() {
                list.push(format!("route {to} by {:?} in table {}", route.device, route.table));
            }
        }
        for link in netlink.links().unwrap() {
            for neighbour in netlink.neighbours(link.index).unwrap() {
                // Multicast groups are the kernel's, and a link-local address goes with its holder's MAC.
                let link_local = matches!(neighbour.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
                if !neighbour.address.is_multicast() && !link_local {
                    list.push(format!("neighbour {}", neighbour.address));
                }
            }
            for address in netlink.addresses_of(link.index).unwrap() {
                if address.scope == 0 {
                    list.push(format!("address {} on {}", address.address, link.name));
                }
            }
            list.push(format!("link {}", link.name));
        }
        let mut paths = vec![self.state_dir().to_owned()];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                list.push(format!("file {}", path.strip_prefix(self.state_dir()).unwrap().display()));
            }
        }
        list.sort();
        list
    }
}

/// The configuration with these port mappings.
pub(crate) fn with_ports(config: &Value, mappings: Value) -> Value {
    let mut config = config.clone();
    config["runtimeConfig"]["portMappings"] = mappings;
    config
}

/// Whether a TCP connection from `client` to `address` in `server` carries a message.
#[track_caller]
pub(crate) fn assert_reaches(client: &Namespace, server: &Namespace, address: IpAddr) {
    let listener = server.run(|| TcpListener::bind(SocketAddr::new(address, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        let connected = scope.spawn(|| {
            client
                .run(|| {
                    TcpStream::connect_timeout(&SocketAddr::new(address, port), LIMIT)
                        .and_then(|mut s| s.write_all(b"x"))
                })
                .unwrap()
        });
        let connected = connected.join().unwrap();
        connected.unwrap_or_else(|error| panic!("{address} is not reached: {error}"));
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}
