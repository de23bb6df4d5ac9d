//! How configurations are read.

use proptest::prelude::*;

use super::*;

fn error(text: &str) -> Error {
    Config::parse(text.as_bytes()).unwrap_err()
}

#[test]
fn the_least_configuration_is_enough() {
    let config = Config::parse(br#"{"cniVersion":"1.1.0","name":"pods","type":"sluice-cni"}"#).unwrap();
    assert_eq!(config.bridge(), "sluice0");
    assert!(config.is_gateway() && config.is_default_gateway() && config.ipam.single().is_none());
    assert_eq!(config.version().unwrap(), Version::V1_1_0);
}

#[test]
fn ours_is_picked_from_a_list() {
    let list = br#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"other"},{"type":"sluice-cni","mtu":1400}]}"#;
    let config = Config::parse(list).unwrap();
    assert_eq!(
        (config.name.as_str(), config.mtu, config.version().unwrap()),
        ("pods", Some(1400), Version::V1_0_0)
    );
    assert_eq!(error(r#"{"name":"pods","plugins":[]}"#).code, Code::InvalidConfig);
}

#[test]
fn both_ways_to_write_ranges_are_read() {
    let single =
        br#"{"name":"n","ipam":{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.9"}}"#;
    let config = Config::parse(single).unwrap();
    assert_eq!(config.ipam.single().unwrap().range_start, Some("10.1.0.9".parse().unwrap()));
    let sets = br#"{"name":"n","ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]]}}"#;
    assert_eq!(Config::parse(sets).unwrap().ipam.ranges.len(), 2);
}

#[test]
fn what_cannot_be_is_refused_with_the_right_number() {
    for (text, code, part) in [
        ("", Code::Decode, "EOF"),
        ("[]", Code::Decode, "not a JSON object"),
        (r#"{"name":"n","mtu":"big"}"#, Code::Decode, "line 1 column 23"),
        (r#"{"name":"n","mtu":"big"}"#, Code::Decode, "mtu: invalid type: string \"big\", expected u32"),
        (r#"{"name":"n","ipam":{"subnet":"10.1.0.0"}}"#, Code::Decode, "ipam.subnet: invalid IP address"),
        (
            r#"{"name":"n","ipam":{"ranges":[[{"rangeStart":"10.1.0.2"}]]}}"#,
            Code::Decode,
            "ipam.ranges[0][0]: missing field `subnet`",
        ),
        (
            r#"{"name":"n","ipam":{"reserved":["10.1.0.0/24","x"]}}"#,
            Code::Decode,
            "ipam.reserved: \"x\" is no address and no network",
        ),
        (r#"{"name":"n","mtu":1,"mtu":2}"#, Code::Decode, "duplicate field `mtu`"),
        (
            r#"{"name":"n","runtimeConfig":{"portMappings":[{"HostPort":1},{"HostPort":"80"}]}}"#,
            Code::Decode,
            "runtimeConfig.portMappings[1].hostPort: invalid type: string \"80\", expected i64 at line 1",
        ),
        (
            r#"{"name":"n","ipam":{"rangeEnd":"10.1.0.9"}}"#,
            Code::InvalidConfig,
            "ipam.rangeEnd stands without ipam.subnet",
        ),
        (r#"{"name":"n","prevResult":"x"}"#, Code::Decode, "prevResult is not an object"),
        (r#"{"name":"n","plugins":{"type":"sluice-cni"}}"#, Code::InvalidConfig, "plugins is not a list"),
        (r#"{"name":"../n"}"#, Code::InvalidConfig, "name \"../n\""),
        (r#"{"cniVersion":"9.9.9","name":"n"}"#, Code::IncompatibleVersion, "\"9.9.9\" is not one of 0.1.0"),
        (r#"{"name":"n","bridge":"a-name-too-long-"}"#, Code::InvalidConfig, "bridge"),
        (r#"{"name":"n","hairpinMode":true,"promiscMode":true}"#, Code::InvalidConfig, "exclude"),
        (
            r#"{"name":"n","runtimeConfig":{"aliases":["db","a..b"]}}"#,
            Code::InvalidConfig,
            "aliases[1]: \"a..b\"",
        ),
        (r#"{"name":"n","vlan":4095}"#, Code::InvalidConfig, "vlan: 4095 is no VLAN"),
        (r#"{"name":"n","bridge":"a-long-name","vlan":4000}"#, Code::InvalidConfig, "\"a-long-name.4000\""),
    ] {
        let error = error(text);
        assert_eq!(error.code, code, "{text}");
        assert!(error.msg.contains(part), "{text}: {}", error.msg);
    }
}

#[test]
fn the_configurations_of_the_documentation_are_understood() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cni.md")).unwrap();
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let ours: Vec<_> = blocks.filter(|block| block.contains("\"sluice-cni\"")).collect();
    assert!(ours.len() > 3, "{}", ours.len());
    for block in ours {
        Config::parse(block.as_bytes()).unwrap_or_else(|error| panic!("{block}: {error}"));
    }
}

#[test]
fn what_go_writes_for_nothing_is_nothing() {
    let text = br#"{"name":"n","mtu":null,"ipMasq":null,"isGateway":null,"promisc":null,"masqAll":null,"sysctl":null,"dns":{"nameservers":null,"search":null},"args":null,
        "ipam":{"ranges":null,"routes":null,"reserved":null,"subnet":null},"prevResult":null,
        "runtimeConfig":{"ips":null,"mac":null,"ipRanges":null,"dns":null,"portMappings":null,"bandwidth":null}}"#;
    let config = Config::parse(text).unwrap();
    assert!(config.ipam.ranges.is_empty() && config.prev_result.is_none());
    assert!(Config::parse(br#"{"name":"n","ipam":null,"runtimeConfig":null,"dns":null}"#).is_ok());
}

#[test]
fn name_servers_are_read_from_a_file() {
    let dns = Dns::parse(
        "# a comment\nnameserver 192.0.2.53\nsearch a b\nnameserver fd00::53\noptions ndots:5\ndomain x\n",
    );
    assert_eq!(dns.nameservers, ["192.0.2.53", "fd00::53"]);
    assert_eq!(
        (dns.search, dns.options, dns.domain),
        (vec!["a".into(), "b".into()], vec!["ndots:5".into()], Some("x".into()))
    );
}

#[test]
fn settings_of_the_node_are_refused() {
    assert_eq!(
        sysctl_path("net.ipv4.conf.IFNAME.arp_filter", "eth0").unwrap(),
        "net/ipv4/conf/eth0/arp_filter"
    );
    assert_eq!(
        sysctl_path("net/ipv4/conf/eth0.7/arp_filter", "x").unwrap(),
        "net/ipv4/conf/eth0.7/arp_filter"
    );
    for name in ["kernel.hostname", "net", "net/../kernel/hostname", "net..x", "/net/x", "../net/x"] {
        assert!(sysctl_path(name, "eth0").is_err(), "{name}");
    }
}

#[test]
fn requests_are_read_from_wherever_they_stand() {
    let text = br#"{"name":"n","runtimeConfig":{"ips":["10.1.0.9/24"],"mac":"02:00:00:00:00:01"},"args":{"cni":{"ips":["fd00::9"]}}}"#;
    let config = Config::parse(text).unwrap();
    let addresses = config.requested_addresses().unwrap();
    assert_eq!(addresses, ["10.1.0.9".parse::<IpAddr>().unwrap(), "fd00::9".parse().unwrap()]);
    assert_eq!(
        config.requested_mac(Some("02:00:00:00:00:02")).unwrap(),
        Some(MacAddress([2, 0, 0, 0, 0, 1]))
    );
    assert!(
        Config::parse(br#"{"name":"n","runtimeConfig":{"mac":"01:00:00:00:00:00"}}"#)
            .unwrap()
            .requested_mac(None)
            .is_err()
    );
}

#[test]
fn what_containerd_adds_is_understood() {
    let text = br#"{"name":"n","runtimeConfig":{
        "dns":{"Servers":["10.96.0.10"],"Searches":["svc.cluster.local"],"Options":["ndots:5"]},
        "portMappings":[{"HostPort":54323,"ContainerPort":8080,"Protocol":"tcp","HostIP":"127.0.0.1"}],
        "bandwidth":{"IngressRate":8000,"IngressBurst":4294967295,"EgressRate":0,"EgressBurst":0},
        "ipRanges":[[{"Subnet":"10.1.0.0/24","RangeStart":"10.1.0.9","RangeEnd":null,"Gateway":null}]]}}"#;
    let config = Config::parse(text).unwrap();
    let ports: Vec<_> = config.host_ports().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["tcp/54323 on 127.0.0.1"]);
    assert_eq!(config.bandwidth().ingress().map(|limit| limit.rate), Some(1000));
    let range = &config.runtime_config.ip_ranges[0][0];
    assert_eq!(range.range_start, Some("10.1.0.9".parse().unwrap()));
    let dns = config.runtime_config.dns.unwrap();
    assert_eq!((dns.servers, dns.searches), (vec!["10.96.0.10".into()], vec!["svc.cluster.local".into()]));
}

#[test]
fn what_is_for_other_kinds_of_devices_is_passed_over() {
    let text = br#"{"name":"n","capabilities":{"cgroupPath":true,"deviceID":true,"infinibandGUID":true,"mac":true},
        "runtimeConfig":{"cgroupPath":"/kubelet/pod1","deviceID":"0000:03:00.7","infinibandGUID":"c2:11:22:33:44:55:66:77",
        "CNIDeviceInfoFile":"/x","mac":"02:00:00:00:00:01"}}"#;
    let config = Config::parse(text).unwrap();
    assert_eq!(config.requested_mac(None).unwrap(), Some(MacAddress([2, 0, 0, 0, 0, 1])));
}

#[test]
fn what_tuning_takes_is_taken_from_wherever_it_stands() {
    let text =
        br#"{"name":"n","mac":"02:00:00:00:00:01","mtu":1400,"sysctl":{"net.a":"1","net.b":"1"},"txQLen":7,
        "args":{"cni":{"sysctl":{"net.b":"2"},"mtu":1300,"promisc":true,"allmulti":true,"txQLen":8}}}"#;
    let config = Config::parse(text).unwrap();
    assert_eq!(config.requested_mac(None).unwrap(), Some(MacAddress([2, 0, 0, 0, 0, 1])));
    let other = Some("02:00:00:00:00:02");
    assert_eq!(config.requested_mac(other).unwrap(), Some(MacAddress([2, 0, 0, 0, 0, 2])));
    assert_eq!(
        (config.mtu, config.tx_queue_len, config.promisc, config.allmulti),
        (Some(1300), Some(8), true, true)
    );
    assert_eq!(config.sysctl.into_iter().map(|(k, v)| k + &v).collect::<Vec<_>>(), ["net.a1", "net.b2"]);
}

#[test]
fn an_empty_ipam_is_for_a_container_without_addresses() {
    for (fields, bare) in [
        ("", false),
        (r#","ipam":null"#, false),
        (r#","ipam":{}"#, true),
        (r#","ipam":{"type":""}"#, true),
        (r#","ipam":{"type":null,"ranges":null,"routes":[],"subnet":null}"#, true),
        (r#","ipam":{"type":"host-local"}"#, false),
        (r#","ipam":{"type":"dhcp"}"#, false),
        (r#","ipam":{"routes":[{"dst":"192.0.2.0/24"}]}"#, false),
        (r#","ipam":{},"runtimeConfig":{"ipRanges":[[{"subnet":"10.1.0.0/24"}]]}"#, false),
    ] {
        let config = Config::parse(format!(r#"{{"name":"n"{fields}}}"#).as_bytes()).unwrap();
        assert_eq!(config.is_bare(), bare, "{fields}");
    }
}

#[test]
fn who_asks_for_a_default_route_by_the_gateway_asks_for_the_gateway() {
    for (text, gateway, default) in [
        (r#"{"name":"n"}"#, true, true),
        (r#"{"name":"n","isGateway":false}"#, false, false),
        (r#"{"name":"n","isGateway":false,"isDefaultGateway":true}"#, true, true),
        (r#"{"name":"n","isDefaultGateway":false}"#, true, false),
    ] {
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!((config.is_gateway(), config.is_default_gateway()), (gateway, default), "{text}");
    }
}

#[test]
fn limits_of_the_network_stand_before_those_that_a_container_asks_for() {
    let asked = r#""runtimeConfig":{"bandwidth":{"ingressRate":8000,"ingressBurst":80}}"#;
    let rate = |text: String| Config::parse(text.as_bytes()).unwrap().bandwidth().ingress().unwrap().rate;
    assert_eq!(rate(format!(r#"{{"name":"n",{asked}}}"#)), 1000);
    let own = r#""bandwidth":{"ingressRate":16000,"ingressBurst":80}"#;
    assert_eq!(rate(format!(r#"{{"name":"n",{own},{asked}}}"#)), 2000);
    let beside = r#""ingressRate":24000,"ingressBurst":80"#;
    assert_eq!(
        rate(format!(r#"{{"name":"n",{beside},{asked}}}"#)),
        3000,
        "where the reference plugin has it"
    );
    let networks = r#""unshapedSubnets":["10.0.0.0/8"]"#;
    for text in [
        format!(r#"{{"name":"n",{networks},{asked}}}"#),
        format!(r#"{{"name":"n","bandwidth":{{{networks}}},{asked}}}"#),
    ] {
        let limit = Config::parse(text.as_bytes()).unwrap().bandwidth().ingress().unwrap();
        assert_eq!(
            (limit.rate, limit.some.is_some()),
            (1000, true),
            "the container's rate for the network's networks"
        );
    }
    for (text, expected) in [
        (r#""bandwidth":{"egressRate":8}"#, "bandwidth.egressRate: a rate without bandwidth.egressBurst"),
        (r#""egressRate":8"#, "egressRate: a rate without egressBurst"),
        (r#""egressRate":8,"bandwidth":{}"#, "bandwidth and its fields beside it exclude each other"),
    ] {
        assert_eq!(error(&format!(r#"{{"name":"n",{text}}}"#)).msg, expected);
    }
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(text in ".{0,120}") {
        let _ = Config::parse(text.as_bytes());
    }
}
