//! kube-proxy's command lines and what they become.

use std::fs;

use super::*;
use crate::config::{NodePortAddress, PodNetwork};

fn asked(line: &str) -> Result<Invocation, String> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    invocation(&words).map_err(|error| error.to_string())
}

fn config(line: &str) -> Config {
    match asked(line) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn flags_are_read_as_kube_proxys_parser_reads_them() {
    let spelled = [
        "--hostname-override=One --masquerade-all --cluster-cidr=10.244.0.0/16,fd00::/48 -v=4 --conntrack-min 7",
        "--hostname_override One --masquerade-all=true --cluster-cidr 10.244.0.0/16,fd00::/48 -v4 --conntrack-min=7",
        "--conntrack-min 3 --conntrack-min 7 --cluster_cidr=10.244.0.0/16,fd00::/48 --hostname-override One -v 4 --masquerade-all=T",
    ];
    for line in spelled {
        let config = config(line);
        assert_eq!((&*config.node_name, config.masquerade_all), ("one", true), "{line}");
        assert_eq!((config.cluster_cidrs.len(), &*config.log_level), (2, "debug"), "{line}");
        assert_eq!(config.flow_entries, 2 * 32_768 * crate::config::cores(), "{line}");
    }
    let config =
        config("--nodeport-addresses 192.0.2.0/24 --nodeport-addresses=2001:db8::/64,198.51.100.0/24");
    assert_eq!(config.node_port_addresses.len(), 3, "a list may be given in parts");
}

#[test]
fn each_flag_becomes_what_its_field_becomes() {
    let all = config(
        "--kubeconfig /k --master https://api.example:6443 --proxy-mode nftables --healthz-bind-address 192.0.2.1 \
         --metrics-bind-address [::]:9999 --iptables-sync-period 7s --conntrack-udp-timeout 10s --oom-score-adj -500 \
         --detect-local-mode BridgeInterface --pod-bridge-interface cni0 --logging-format json",
    );
    assert_eq!(
        (all.kubeconfig.as_deref(), &*all.api_servers),
        (Some("/k".as_ref()), &["https://api.example:6443".to_owned()][..])
    );
    assert_eq!(all.healthz_address.unwrap().to_string(), "192.0.2.1:10256");
    assert_eq!(all.metrics_address.unwrap().to_string(), "[::]:9999");
    assert_eq!(all.node_port_addresses, [NodePortAddress::Primary], "as mode nftables has it");
    assert_eq!((all.resync_period.as_secs(), all.flow_timeouts.udp.as_secs()), (7, 10));
    assert_eq!(all.oom_score_adj, Some(-500));
    // Everything else of a node is somebody else's.
    assert_eq!(all.pod_network, PodNetwork::Foreign);
    assert!(all.proxy && !all.dns && !all.routes && all.cni_conf_dir.is_none());
    let nothing = config("");
    assert_eq!(nothing.node_port_addresses, [NodePortAddress::All], "as mode iptables has it");
    assert_eq!(nothing.oom_score_adj, Some(-999));
    // The older flags for ports count where the address has none.
    let ports = config("--healthz-port=0 --metrics-port 7777 --metrics-bind-address 0.0.0.0");
    assert_eq!((ports.healthz_address, ports.metrics_address.unwrap().port()), (None, 7777));
    assert_eq!(config("--healthz-port=1234").healthz_address.unwrap().port(), 10_256);
}

#[test]
fn what_has_no_meaning_is_remarked_on_by_its_flag() {
    let line = "--cluster-cidr 10.0.0.0/8 --ipvs-scheduler rr --kube-api-qps 50 --feature-gates A=true,B=false \
                --iptables-masquerade-bit 15 --boot-id-file /b --ipvs-sync-period 1s --bind-address 192.0.2.9 \
                --config-sync-period 1m --vmodule a=1 --bind-address-hard-fail --kube-api-burst=10";
    let remarks = config(line).remarks;
    for flag in [
        "--ipvs-scheduler: ",
        "--kube-api-qps: ",
        "--feature-gates.A: ",
        "--iptables-masquerade-bit: ",
        "--boot-id-file has no effect",
        "--ipvs-sync-period has no effect",
        "--bind-address: ",
        "--config-sync-period: ",
        "--vmodule: ",
        "--bind-address-hard-fail: ",
    ] {
        let said = remarks.iter().filter(|remark| remark.starts_with(flag)).count();
        assert_eq!(said, 1, "{flag} in {remarks:#?}");
    }
    assert_eq!(remarks.len(), 10, "{remarks:#?}");
}

#[test]
fn what_kube_proxy_would_not_take_is_refused_by_its_flag() {
    let table = [
        ("--no-such-flag", "unknown flag: --no-such-flag"),
        ("-x", "unknown flag: -x"),
        ("start", "\"start\" is not a flag"),
        ("--cleanup true", "\"true\" is not a flag"),
        ("--cleanup=perhaps", "--cleanup: \"perhaps\" is not true or false"),
        ("--cluster-cidr", "--cluster-cidr needs a value"),
        ("--cluster-cidr 10.244.0.0", "--cluster-cidr: \"10.244.0.0\" is not a network"),
        ("--proxy-mode userspace", "--proxy-mode: \"userspace\" is none of"),
        ("--bind-address here", "--bind-address: \"here\" is not an address"),
        ("--healthz-bind-address 1.2.3.4:http", "--healthz-bind-address: "),
        ("--conntrack-min many", "--conntrack-min: \"many\" is not a whole number"),
        ("--conntrack-min -7", "--conntrack-min: is less than 0"),
        ("--iptables-sync-period soon", "--iptables-sync-period: \"soon\" is not a length of time"),
        ("--iptables-sync-period 1s --iptables-min-sync-period 2s", "--iptables-min-sync-period: "),
        ("--feature-gates A", "--feature-gates: \"A\" is not of the form"),
        ("--nodeport-addresses primary,here", "--nodeport-addresses[1]: "),
        ("--oom-score-adj 2000", "--oom-score-adj: is not between"),
        ("--config /no/such/file", "cannot read the configuration /no/such/file"),
    ];
    for (line, start) in table {
        let said = asked(line).expect_err(line);
        assert!(said.starts_with(start), "{line}: {said}");
    }
}

#[test]
fn beside_a_file_only_those_flags_count_that_kube_proxy_lets_go_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nhostnameOverride: theirs\n\
                clusterCIDR: 10.244.0.0/16\nmetricsBindAddress: 127.0.0.1:9\nlogging: {verbosity: 8, format: text}\n";
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let both = config(&format!(
        "--config={file} --hostname-override=$ours --metrics-bind-address 0.0.0.0:7 -v 4 --logging-format=json \
         --cluster-cidr 10.0.0.0/8 --healthz-port 0 --master http://192.0.2.1:8080"
    ));
    assert_eq!((&*both.node_name, &*both.log_level), ("$ours", "debug"));
    assert_eq!(both.log_format, crate::config::LogFormat::Json);
    assert_eq!(both.metrics_address.unwrap().port(), 9);
    assert_eq!(both.healthz_address.unwrap().port(), 10_256);
    assert_eq!(both.cluster_cidrs[0].to_string(), "10.244.0.0/16");
    assert_eq!(both.api_servers, ["http://192.0.2.1:8080"]);
    let left_out =
        "--cluster-cidr --healthz-port --metrics-bind-address: the file that --config names goes before";
    assert_eq!(both.remarks, [left_out]);
    assert_eq!(both.followed, Some((file.into(), text.to_owned())));
    assert_eq!(
        config(&format!("--config {}", both.followed.unwrap().0.display())).node_name.as_ref(),
        "theirs"
    );

    let own = folder.path().join("own.yaml");
    fs::write(&own, "stateDir: /s\nnodeName: own\nmetricsAddress: none\n").unwrap();
    let with_own = config(&format!("--sluice-config {} --hostname-override x", own.display()));
    assert_eq!((&*with_own.node_name, with_own.state_dir.to_str()), ("x", Some("/s")));
    assert_eq!(with_own.metrics_address, None, "our own file goes before kube-proxy's defaults");
}

#[test]
fn what_is_to_be_done_is_said_by_flags() {
    assert!(matches!(asked("--cleanup --init-only"), Ok(Invocation::Cleanup(_))));
    assert!(matches!(asked("--init-only"), Ok(Invocation::InitOnly(_))));
    assert!(matches!(asked("--cleanup=false"), Ok(Invocation::Run(_))));
    for line in ["--help", "-h"] {
        let Ok(Invocation::Print(text)) = asked(line) else { panic!("{line}") };
        assert!(text.contains("--conntrack-tcp-timeout-close-wait DURATION"), "{text}");
    }
    let Ok(Invocation::Print(text)) = asked("--version --no-such=1 ".trim_end_matches("--no-such=1 ")) else {
        panic!("--version")
    };
    assert!(text.starts_with("sluice kube-proxy "), "{text}");
}

#[test]
fn what_is_written_is_what_was_set_and_every_default() {
    let Ok(Invocation::Write(path, text)) =
        asked("--write-config-to /w --cluster-cidr 10.244.0.0/16 --nodeport-addresses primary")
    else {
        panic!("it writes")
    };
    assert_eq!(path.to_str(), Some("/w"));
    for line in [
        "clusterCIDR: \"10.244.0.0/16\"",
        "nodePortAddresses: [\"primary\"]",
        "  maxPerCore: 32768",
        "mode: iptables",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // It reads back without a remark on a default, and means the same.
    let told = super::super::translate(&text, &super::super::tests::HERE).unwrap();
    assert_eq!(told.remarks, ["mode: iptables is kube-proxy's; programs of eBPF serve, whatever it says"]);
    let words = ["--cluster-cidr", "10.244.0.0/16", "--nodeport-addresses", "primary"].map(str::to_owned);
    let document = flags::parse(&words).unwrap().document();
    let mut plain = translate_value(document.value, &super::super::tests::HERE).unwrap().settings;
    // What is a default here, too, is said there.
    plain.flow_entries = told.settings.flow_entries;
    plain.tcp_established_timeout = told.settings.tcp_established_timeout;
    plain.tcp_close_wait_timeout = told.settings.tcp_close_wait_timeout;
    plain.log_format = told.settings.log_format;
    plain.resync_period = told.settings.resync_period;
    assert_eq!(told.settings, plain);
}
