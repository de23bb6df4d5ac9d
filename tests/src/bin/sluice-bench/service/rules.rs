//! Rulesets laid out as kube-proxy lays them out in its modes nftables and iptables, for a node with some services.
//! IPv4 alone, as that is what is measured.

use std::fmt::Write as _;

/// A service's port, and the one endpoint behind it.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    /// Address and port.
    pub(crate) endpoint: (String, u16),
}

/// The networks of all pods.
const PODS: &str = "10.244.0.0/16";
/// The mark of what is to be masqueraded.
const MARK: &str = "0x4000";

/// The ruleset of the mode nftables: lookups in verdict maps, whatever the number of services.
pub(crate) fn nftables(node: &str, services: &[Served]) -> String {
    let mut text = format!(
        "table ip kube-proxy {{\n\
         map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         set cluster-ips {{ type ipv4_addr; }}\n\
         set nodeport-ips {{ type ipv4_addr; elements = {{ {node} }}; }}\n\
         chain masquerade-mark {{ meta mark set meta mark or {MARK}; }}\n"
    );
    let (mut addresses, mut ports, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (index, served) in services.iter().enumerate() {
        let Served { address, protocol, port, node_port, endpoint: (to, to_port) } = served;
        let _infallible = write!(
            text,
            "chain endpoint-{index} {{\n\
             ip saddr {to} jump masquerade-mark\n\
             meta l4proto {protocol} dnat to {to}:{to_port}\n}}\n\
             chain service-{index} {{\n\
             ip daddr {address} {protocol} dport {port} ip saddr != {PODS} jump masquerade-mark\n\
             numgen random mod 1 vmap {{ 0 : goto endpoint-{index} }}\n}}\n"
        );
        addresses.push(format!("{address} . {protocol} . {port} : goto service-{index}"));
        all.push(address.clone());
        if let Some(node_port) = node_port {
            let _infallible =
                write!(text, "chain external-{index} {{\njump masquerade-mark\ngoto service-{index}\n}}\n");
            ports.push(format!("{protocol} . {node_port} : goto external-{index}"));
        }
    }
    all.sort();
    all.dedup();
    let _infallible = write!(
        text,
        "chain services {{\n\
         ip daddr . meta l4proto . th dport vmap @service-ips\n\
         ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
         chain endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}\n\
         chain nodeports-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}\n\
         chain cluster-ips-check {{ ip daddr @cluster-ips reject; }}\n\
         chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}\n\
         chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}\n\
         chain filter-input {{ type filter hook input priority -110;\n\
         ct state new jump nodeports-check\nct state new jump endpoints-check\n}}\n\
         chain filter-forward {{ type filter hook forward priority -110;\n\
         ct state new jump endpoints-check\nct state new jump cluster-ips-check\n}}\n\
         chain filter-output {{ type filter hook output priority -110;\n\
         ct state new jump endpoints-check\nct state new jump firewall-check\n}}\n\
         chain filter-output-post-dnat {{ type filter hook output priority -90; ct state new jump cluster-ips-check; }}\n\
         chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain masquerading {{\n\
         meta mark and {MARK} == 0 return\nmeta mark set meta mark xor {MARK}\nmasquerade fully-random\n}}\n\
         chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}\n}}\n"
    );
    for (map, elements) in
        [("map service-ips", &addresses), ("map service-nodeports", &ports), ("set cluster-ips", &all)]
    {
        let (_, name) = map.split_once(' ').unwrap_or(("", map));
        // One command for a thousand elements: longer ones take nft long to read.
        for part in elements.chunks(1000) {
            let _infallible = writeln!(text, "add element ip kube-proxy {name} {{ {} }}", part.join(", "));
        }
    }
    text
}

/// The ruleset of the mode iptables, for `iptables-restore`: a rule for each service, looked at one after the other.
/// The order is that of `services`.
pub(crate) fn iptables(services: &[Served]) -> String {
    let mut nat = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n",
    );
    for (index, served) in services.iter().enumerate() {
        let _infallible = writeln!(nat, ":KUBE-SVC-{index} - [0:0]\n:KUBE-SEP-{index} - [0:0]");
        if served.node_port.is_some() {
            let _infallible = writeln!(nat, ":KUBE-EXT-{index} - [0:0]");
        }
    }
    nat += "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n";
    let _infallible = write!(
        nat,
        "-A KUBE-MARK-MASQ -j MARK --or-mark {MARK}\n\
         -A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark {MARK}\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n"
    );
    for (index, served) in services.iter().enumerate() {
        let Served { address, protocol, port, node_port, endpoint: (to, to_port) } = served;
        let _infallible = write!(
            nat,
            "-A KUBE-SERVICES -d {address}/32 -p {protocol} -m {protocol} --dport {port} -j KUBE-SVC-{index}\n\
             -A KUBE-SVC-{index} ! -s {PODS} -d {address}/32 -p {protocol} -m {protocol} --dport {port} -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{index} -j KUBE-SEP-{index}\n\
             -A KUBE-SEP-{index} -s {to}/32 -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{index} -p {protocol} -m {protocol} -j DNAT --to-destination {to}:{to_port}\n"
        );
        if let Some(node_port) = node_port {
            let _infallible = write!(
                nat,
                "-A KUBE-NODEPORTS -p {protocol} -m {protocol} --dport {node_port} -j KUBE-EXT-{index}\n\
                 -A KUBE-EXT-{index} -j KUBE-MARK-MASQ\n-A KUBE-EXT-{index} -j KUBE-SVC-{index}\n"
            );
        }
    }
    nat += "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n";
    let filter = format!(
        "*filter\n:KUBE-FORWARD - [0:0]\n:KUBE-SERVICES - [0:0]\n\
         -A INPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A FORWARD -j KUBE-FORWARD\n-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark {MARK}/{MARK} -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    );
    nat + &filter
}
