//! What kube-proxy's configuration becomes.

use std::time::Duration;

use super::*;

/// A machine of four processors, whose pods Sluice attaches.
pub(super) const HERE: Around<'static> = Around { cores: 4, bridge: None, foreign: false };

fn read(fields: &str) -> Result<Translated, String> {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{fields}");
    translate(&text, &HERE).map_err(|error| error.to_string())
}

fn settings(fields: &str) -> Settings {
    read(fields).unwrap().settings
}

/// As kubeadm writes it, for a cluster with both families.
const KUBEADM: &str = "bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: \"\"
  interfaceNamePrefix: \"\"
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: \"\"
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
metricsBindAddress: \"\"
mode: \"\"
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: \"\"
showHiddenMetricsForVersion: \"\"
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: \"\"
  rootHnsEndpointName: \"\"
  sourceVip: \"\"
";

#[test]
fn what_kubeadm_writes_is_taken_without_a_remark() {
    let Translated { settings, remarks } = read(KUBEADM).unwrap();
    assert_eq!(remarks, [""; 0]);
    let listen = |text: &str| Some(text.parse().unwrap());
    let networks = ["10.244.0.0/16", "fd00:10:244::/56"].map(|text| text.parse().unwrap());
    let expected = Settings {
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        healthz_address: listen("0.0.0.0:10256"),
        metrics_address: listen("127.0.0.1:10249"),
        detect_local: Some(DetectLocal::ClusterCidr),
        cluster_cidrs: Some(networks.to_vec()),
        node_port_addresses: Some(vec![NodePortAddress::All]),
        nf_conntrack: Some(
            "max=131072,tcp_timeout_established=86400,tcp_timeout_close_wait=3600".parse().unwrap(),
        ),
        oom_score_adj: Some(-999),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
}

#[test]
fn what_has_a_meaning_becomes_a_setting() {
    let text = "mode: nftables\nhostnameOverride: ' Node-One '\nbindAddress: '::'\nmetricsBindAddress: '[::]:9999'\n\
                detectLocalMode: NodeCIDR\nlogging: {format: json, verbosity: 4}\noomScoreAdj: 7\n\
                nftables: {masqueradeAll: true, syncPeriod: 1m}\n\
                conntrack: {maxPerCore: 65536, tcpEstablishedTimeout: 2h30m, tcpCloseWaitTimeout: 60s, udpTimeout: 10s, \
                udpStreamTimeout: 5m}\n";
    let set = settings(text);
    assert_eq!(set.node_name.as_deref(), Some("node-one"));
    assert_eq!(set.healthz_address, Some("[::]:10256".parse().unwrap()));
    assert_eq!(set.metrics_address, Some("[::]:9999".parse().unwrap()));
    assert_eq!(set.node_port_addresses, Some(vec![NodePortAddress::Primary]), "as mode nftables has it");
    assert_eq!((set.detect_local, set.masquerade_all), (Some(DetectLocal::NodeCidr), Some(true)));
    assert_eq!((set.log_format, set.log_level.as_deref()), (Some(LogFormat::Json), Some("debug")));
    assert_eq!(set.oom_score_adj, Some(7));
    assert_eq!(set.flow_entries, Some(2 * 4 * 65_536), "two entries are a connection");
    let seconds = |period: Option<Period>| period.map(|period| period.0.as_secs());
    assert_eq!(seconds(set.resync_period), Some(60));
    assert_eq!(seconds(set.tcp_established_timeout), Some(9_000));
    assert_eq!(seconds(set.tcp_close_wait_timeout), Some(60));
    assert_eq!((seconds(set.udp_timeout), seconds(set.udp_stream_timeout)), (Some(10), Some(300)));
}

#[test]
fn node_ports_are_served_where_the_mode_serves_them() {
    let places = |text: &str| {
        let places = settings(text).node_port_addresses.unwrap();
        places.iter().map(|place| serde_json::to_string(place).unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(places("mode: iptables\n"), r#""all""#);
    assert_eq!(places("iptables: {localhostNodePorts: false}\n"), r#""0.0.0.0/0" "::/0""#);
    assert_eq!(places("mode: ipvs\n"), r#""0.0.0.0/0" "::/0""#);
    assert_eq!(places("nodePortAddresses: [primary]\n"), r#""primary""#);
    assert_eq!(
        places("nodePortAddresses: [192.0.2.7/24, '2001:db8::/64']\n"),
        r#""192.0.2.0/24" "2001:db8::/64""#
    );
}

#[test]
fn interfaces_are_ours_or_remarked_on() {
    let said = |text: &str| read(text).unwrap().remarks.join("; ");
    let text = format!(
        "apiVersion: {API_VERSION}\nkind: {KIND}\ndetectLocalMode: BridgeInterface\ndetectLocal: {{bridgeInterface: cni0}}\n"
    );
    let elsewhere = translate(&text, &Around { foreign: true, ..HERE }).unwrap();
    assert_eq!(elsewhere.remarks, [""; 0], "pods of others are known by their devices");
    let ours = "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: sluice0}\n";
    assert_eq!(said(ours), "");
    assert_eq!(settings(ours).detect_local, Some(DetectLocal::Interface));
    assert_eq!(
        said("detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: sluice}\n"),
        ""
    );
    let other = said(
        "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}\nclusterCIDR: 10.0.0.0/8\n",
    );
    assert!(
        other.contains("clusterCIDR: is not used") && other.contains("detectLocal.bridgeInterface: cni0"),
        "{other}"
    );
}

#[test]
fn what_has_no_meaning_is_remarked_on_by_name() {
    let text = "clusterCIDR: 10.244.0.0/16\nmode: ipvs\nipvs: {scheduler: rr, strictARP: true}\nfeatureGates: {SomeGate: true}\n\
                portRange: 1-2\nenableProfiling: true\nnftables: {masqueradeBit: 15}\niptables: {minSyncPeriod: 2s}\n\
                bindAddress: 192.0.2.1\nclientConnection: {qps: 50, burst: 10}\nlogging: {vmodule: a=1}\nfutureField: {deep: 1}\n\
                configSyncPeriod: 15m\n";
    let remarks = read(text).unwrap().remarks;
    for name in [
        "mode",
        "ipvs.scheduler",
        "ipvs.strictARP",
        "featureGates.SomeGate",
        "portRange",
        "enableProfiling",
        "nftables.masqueradeBit",
        "iptables.minSyncPeriod",
        "bindAddress",
        "clientConnection.qps",
        "logging.vmodule",
        "futureField.deep",
    ] {
        let said = remarks.iter().filter(|remark| remark.starts_with(&format!("{name}: "))).count();
        assert_eq!(said, 1, "{name} in {remarks:#?}");
    }
    assert_eq!(remarks.len(), 12, "{remarks:#?}");
    assert!(remarks.iter().any(|remark| remark.contains("there is no such field")));
}

#[test]
fn what_kube_proxy_refuses_is_refused_with_its_field() {
    let table = [
        ("mode: userspace\n", "mode: "),
        ("bindAddress: here\n", "bindAddress: "),
        ("healthzBindAddress: 1.2.3.4:http\n", "healthzBindAddress: "),
        ("metricsBindAddress: 1.2.3.4:0\n", "metricsBindAddress: "),
        ("detectLocalMode: Guess\n", "detectLocalMode: "),
        ("detectLocalMode: BridgeInterface\n", "detectLocal.bridgeInterface: "),
        ("clusterCIDR: 10.0.0.0/8,10.1.0.0/16\n", "clusterCIDR: "),
        ("clusterCIDR: 10.0.0.0\n", "clusterCIDR: "),
        ("nodePortAddresses: [192.0.2.1]\n", "nodePortAddresses[0]: "),
        ("nodePortAddresses: 192.0.2.0/24\n", "nodePortAddresses: "),
        ("iptables: {masqueradeBit: 32}\n", "iptables.masqueradeBit: "),
        ("iptables: {syncPeriod: -1s}\n", "iptables.syncPeriod: "),
        ("iptables: {syncPeriod: 1s, minSyncPeriod: 2s}\n", "iptables.minSyncPeriod: "),
        ("ipvs: {excludeCIDRs: [all]}\n", "ipvs.excludeCIDRs[0]: "),
        ("conntrack: {min: -1}\n", "conntrack.min: "),
        ("conntrack: {udpTimeout: soon}\n", "conntrack.udpTimeout: "),
        ("conntrack: 7\n", "conntrack: "),
        ("oomScoreAdj: 2000\n", "oomScoreAdj: "),
        ("hostnameOverride: 7\n", "hostnameOverride: "),
        ("configSyncPeriod: -5m\n", "configSyncPeriod: "),
        ("mode: nftables\nnftables: {masqueradeAll: maybe}\n", "nftables.masqueradeAll: "),
    ];
    for (text, start) in table {
        let said = read(text).expect_err(text);
        assert!(said.starts_with(start), "{text}{said}");
    }
    assert!(
        translate("kind: KubeProxyConfiguration\n", &HERE)
            .unwrap_err()
            .to_string()
            .starts_with("apiVersion: ")
    );
    assert!(translate("- 1\n", &HERE).is_err() && translate(": : :", &HERE).is_err());
}

#[test]
fn nf_conntrack_is_told_what_kube_proxy_tells_it() {
    let told = |section: &str, cores: u32| {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nconntrack: {section}\n");
        let settings = translate(&text, &Around { cores, ..HERE }).unwrap().settings;
        (settings.nf_conntrack.unwrap().to_string(), settings.flow_entries)
    };
    let times = ",tcp_timeout_established=86400,tcp_timeout_close_wait=3600";
    let table = [
        // 32,768 for each processor, 131,072 at least and 1,048,576 at most.
        ("{}", 2, format!("max=131072{times}"), None),
        ("{}", 8, format!("max=262144{times}"), None),
        ("{}", 64, format!("max=1048576{times}"), None),
        ("{maxPerCore: 1000, min: 500}", 4, format!("max=4000{times}"), Some(8000)),
        ("{min: 2000000}", 4, format!("max=2000000{times}"), Some(4_000_000)),
        // None for a processor leaves it as it is, and so does no time at all, where that is said.
        ("{maxPerCore: 0, min: 7}", 4, times[1..].to_owned(), None),
        (
            "{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}",
            4,
            "none".to_owned(),
            None,
        ),
        (
            "{maxPerCore: 0, tcpBeLiberal: true, udpTimeout: 10s, udpStreamTimeout: 1m, tcpCloseWaitTimeout: 30s}",
            4,
            "tcp_timeout_established=86400,tcp_timeout_close_wait=30,tcp_be_liberal=1,udp_timeout=10,udp_timeout_stream=60"
                .to_owned(),
            None,
        ),
    ];
    for (section, cores, expected, entries) in table {
        assert_eq!(told(section, cores), (expected, entries), "{section} of {cores}");
    }
    let usual = usual_nf_conntrack(2, Duration::from_secs(7), Duration::from_secs(8));
    assert_eq!(usual.to_string(), "max=131072,tcp_timeout_established=7,tcp_timeout_close_wait=8");
}
