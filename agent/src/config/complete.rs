//! The defaults, put where nothing is set.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use sluice_model::ObjectName;
use sluice_proxy::FlowTimeouts;

use super::{
    Config, ConfigError, NodePortAddress, Period, Settings, cores, kube_proxy::usual_nf_conntrack, source,
};

impl Config {
    /// Puts the defaults where nothing is set, and checks the whole.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let set = settings.clone();
        let node_name = match settings.node_name {
            Some(name) => name,
            None => fs::read_to_string("/proc/sys/kernel/hostname")
                .map_err(ConfigError::HostName)?
                .trim()
                .to_lowercase(),
        };
        let cni_conf_dir = match (settings.cni_conflist, settings.cni_conf_dir) {
            (Some(false), _) => None,
            (_, Some(folder)) => Some(folder),
            // Whoever runs from a folder of manifests may have no container runtime, and has not asked for one to be
            // told anything.
            (None, None) if settings.manifests.is_some() => None,
            (_, None) => Some("/etc/cni/net.d".into()),
        };
        let times = FlowTimeouts::default();
        let or_usual = |period: Option<Period>, usual| period.map_or(usual, |period| period.0);
        let flow_timeouts = FlowTimeouts {
            tcp_established: or_usual(settings.tcp_established_timeout, times.tcp_established),
            tcp_half_closed: or_usual(settings.tcp_close_wait_timeout, times.tcp_half_closed),
            udp: or_usual(settings.udp_timeout, times.udp),
            udp_stream: or_usual(settings.udp_stream_timeout, times.udp_stream),
        };
        let nf_conntrack = settings.nf_conntrack.unwrap_or_else(|| {
            usual_nf_conntrack(cores(), flow_timeouts.tcp_established, flow_timeouts.tcp_half_closed)
        });
        let config = Self {
            set,
            remarks: Vec::new(),
            followed: None,
            node_name: node_name.into(),
            manifests: settings.manifests,
            kubeconfig: settings.kubeconfig,
            api_servers: source::api_servers(&settings.api_servers.unwrap_or_default())?,
            api_idle_timeout: settings.api_idle_timeout.map_or(Duration::from_secs(150), |period| period.0),
            publish_pod_status: settings.publish_pod_status.unwrap_or(false),
            state_dir: settings.state_dir.unwrap_or_else(|| "/var/lib/sluice".into()),
            handover_wait: settings.handover_wait.map_or(crate::handover::PATIENCE, |time| time.0),
            bpffs_dir: settings.bpffs_dir.unwrap_or_else(|| "/sys/fs/bpf/sluice".into()),
            cgroup_root: settings.cgroup_root.or_else(mounted_cgroup2),
            sysctl_dir: settings.sysctl_dir,
            datapath_object: settings.datapath_object,
            flow_entries: settings.flow_entries.unwrap_or(262_144),
            flow_timeouts,
            nf_conntrack,
            oom_score_adj: settings.oom_score_adj,
            pod_network: settings.pod_network.unwrap_or_default(),
            bridge: settings.bridge.unwrap_or_else(|| sluice_netlink::owned::DEFAULT_BRIDGE.to_owned()),
            uplinks: settings.uplinks,
            mtu: settings.mtu,
            service_cidrs: settings.service_cidrs.unwrap_or_default().iter().map(IpNet::trunc).collect(),
            non_masquerade_cidrs: settings
                .non_masquerade_cidrs
                .unwrap_or_default()
                .iter()
                .map(IpNet::trunc)
                .collect(),
            masquerade_all: settings.masquerade_all.unwrap_or(false),
            detect_local: settings.detect_local.unwrap_or_default(),
            cluster_cidrs: settings.cluster_cidrs.unwrap_or_default().iter().map(IpNet::trunc).collect(),
            overlay: settings.overlay.unwrap_or_default(),
            vxlan_id: settings.vxlan_id.unwrap_or(83),
            vxlan_port: settings.vxlan_port.unwrap_or(8472),
            node_port_addresses: settings
                .node_port_addresses
                .unwrap_or_else(|| vec![NodePortAddress::Primary]),
            guard_node_ports: settings.guard_node_ports.unwrap_or(false),
            cni_conf_dir,
            attach: settings.attach.unwrap_or_default(),
            cluster_domain: settings.cluster_domain.unwrap_or_else(|| "cluster.local".to_owned()),
            dns_multicluster_zones: settings.dns_multicluster_zones.unwrap_or_default(),
            cluster_dns: settings.cluster_dns.unwrap_or_default(),
            dns_service: settings
                .dns_service
                .map_or_else(|| ObjectName::new("kube-system", "kube-dns"), |name| name.0),
            dns_upstreams: upstreams(&settings.dns_upstreams.unwrap_or_default())?,
            resolv_conf: settings.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
            dns_ttl: settings.dns_ttl.unwrap_or(30),
            corefile: settings.corefile,
            dns_allow_from: settings.dns_allow_from.unwrap_or_default().iter().map(IpNet::trunc).collect(),
            dns_health_address: settings.dns_health_address,
            dns_ready_address: settings.dns_ready_address,
            dns_metrics_address: settings.dns_metrics_address,
            dns_lameduck: settings.dns_lameduck.map(|time| time.0),
            proxy: settings.proxy.unwrap_or(true),
            dns: settings.dns.unwrap_or(true),
            routes: settings.routes.unwrap_or(true),
            fast_path: settings.fast_path.unwrap_or(true),
            healthz_address: settings
                .healthz_address
                .map_or(Some((Ipv4Addr::UNSPECIFIED, 10_256).into()), |listen| listen.0),
            metrics_address: settings
                .metrics_address
                .map_or(Some((Ipv4Addr::LOCALHOST, 10_249).into()), |listen| listen.0),
            program_stats: settings.program_stats.unwrap_or(false),
            resync_period: settings.resync_period.map_or(Duration::from_secs(30), |period| period.0),
            log_format: settings.log_format.unwrap_or_default(),
            log_level: settings.log_level.unwrap_or_else(|| "info".to_owned()),
        };
        config.check()?;
        Ok(config)
    }
}

fn upstreams(texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let parse = |text: &String| {
        let address = text.parse::<SocketAddr>().ok();
        let plain = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
        address.or_else(plain).ok_or_else(|| ConfigError::Value {
            setting: "dnsUpstreams",
            problem: format!("{text:?} is not an address or address:port"),
        })
    };
    texts.iter().map(parse).collect()
}

/// Where cgroup2 is mounted, as the process sees it.
fn mounted_cgroup2() -> Option<PathBuf> {
    cgroup2_of(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn cgroup2_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_root_is_found() {
        let mounts = "proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_of(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_of("proc /proc proc rw 0 0\n"), None);
    }
}
