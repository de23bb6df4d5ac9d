//! A switch: a namespace with a bridge, and wires from its ports to hosts.

use std::cell::RefCell;

use super::{Host, Testbed};
use crate::Result;

/// The switch's bridge.
const BRIDGE: &str = "lan";

/// A switch; removed, with its wires, when dropped.
#[derive(Debug)]
pub struct Switch {
    host: Host,
    /// The hosts at its ports, by the ports' numbers.
    ports: RefCell<Vec<String>>,
}

impl Switch {
    pub(super) fn make(bed: &Testbed, name: &str) -> Result<Self> {
        let host = bed.host(name)?;
        // Spanning tree and its delay are off by default; multicast snooping would swallow neighbour discovery
        // until the first query.
        host.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0\nlink set {BRIDGE} up\n"))?;
        Ok(Self { host, ports: RefCell::default() })
    }

    /// A wire to `host`, which gets `device` with these addresses (with prefix lengths).
    pub fn connect(&self, host: &Host, device: &str, addresses: &[&str]) -> Result<()> {
        let mut ports = self.ports.borrow_mut();
        let port = format!("port{}", ports.len());
        ports.push(host.name().to_owned());
        let mut here = format!("link add {port} type veth peer name {device} netns {}\n", host.netns());
        here += &format!("link set {port} master {BRIDGE}\nlink set {port} up\n");
        self.host.ip(&here)?;
        // The link-local address is used at once, as on a machine that has been up for long: nobody else has it, and
        // until duplicate address detection is over, the host could not find its neighbours.
        host.sysctl(&[&format!("net/ipv6/conf/{device}/accept_dad=0")])?;
        let mut there = String::new();
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            there += &format!("address add {address} dev {device}{nodad}\n");
        }
        host.ip(&format!("{there}link set {device} up\n"))?;
        Ok(())
    }

    /// Swallows everything from and to a host, whose devices stay up, or does not any more.
    pub fn sever(&self, host: &Host, severed: bool) -> Result<()> {
        // States of spanning tree: a port that is disabled, or forwards.
        let state = if severed { "0" } else { "3" };
        let ports = self.ports.borrow();
        let of_host = ports.iter().enumerate().filter(|(_, name)| *name == host.name());
        for (port, _) in of_host {
            self.host.succeed("bridge", &["link", "set", "dev", &format!("port{port}"), "state", state])?;
        }
        Ok(())
    }

    /// The switch itself, for captures and faults.
    pub fn host(&self) -> &Host {
        &self.host
    }
}
