//! The binary as a person or a supervisor meets it: exit codes, the line that says it is ready, its ports, its end.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use sluice_netlink::{Namespace, Netlink};

const LIMIT: Duration = Duration::from_secs(20);

fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    sluice(arguments).output().unwrap()
}

#[test]
fn a_wrong_configuration_ends_with_its_place_and_a_status_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    fs::write(&file, "nodeName: one\nmanifest: /m\n").unwrap();
    let path = file.to_str().unwrap();
    let missing = folder.path().join("none.yaml");
    let kube_proxy = folder.path().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.244.0.0\n";
    fs::write(&kube_proxy, text).unwrap();
    let kube_proxy = kube_proxy.to_str().unwrap();
    let table = [
        (
            vec!["agent", "--manifests", "/m", "--kube-proxy-config", kube_proxy],
            "config.conf: clusterCIDR: \"10.244.0.0\" is not a network",
        ),
        (vec!["agent", "--config", path], "line 2"),
        (vec!["agent", "--config", missing.to_str().unwrap()], "none.yaml"),
        (vec!["agent", "--node-name", "one"], "no source of objects"),
        (vec!["agent", "--manifests", "/m", "--mtu", "99"], "mtu"),
        (vec!["cleanup", "--manifests", "/m", "--log-level", "=,="], "logLevel"),
    ];
    for (arguments, expected) in table {
        let output = output(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn kube_proxys_configuration_is_shown_as_one_of_our_own() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
                ipvs: {scheduler: rr}\nclusterCIDR: 10.244.0.0/16\nconntrack: {udpTimeout: 10s}\n";
    fs::write(&theirs, text).unwrap();
    let theirs = ["--kube-proxy-config", theirs.to_str().unwrap()];
    let shown = output(&[&["show-config", "--manifests", "/m", "--node-name", "one"][..], &theirs].concat());
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success() && said.contains("ipvs.scheduler: \"rr\" has no effect"), "{said}");
    // What is shown is a file that says the same.
    let ours = folder.path().join("agent.yaml");
    fs::write(&ours, &shown.stdout).unwrap();
    let again = output(&["show-config", "--config", ours.to_str().unwrap()]);
    assert!(again.stderr.is_empty(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(again.stdout, shown.stdout);
    let settings: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&settings["detectLocal"], &settings["udpTimeout"]), (&"clusterCIDR".into(), &"10s".into()));
}

#[test]
fn help_and_version() {
    let help = String::from_utf8(output(&["agent", "--help"]).stdout).unwrap();
    for flag in ["--config", "--manifests", "--kubeconfig", "--fast-path", "--healthz-address"] {
        assert!(help.contains(flag), "{help}");
    }
    let version = String::from_utf8(output(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), format!("sluice {}", env!("CARGO_PKG_VERSION")));
}

/// A running agent; killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself, which is what most tests want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    /// Starts an agent without datapath and DNS in the thread's namespace.
    fn start(folder: &Path, more: &[&str], notify: &Path) -> Self {
        let manifests = folder.join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        let state = folder.join("state");
        let mut command =
            sluice(&["agent", "--proxy=false", "--dns=false", "--node-name", "one", "--log-format", "json"]);
        command.args(["--manifests", manifests.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
        let child = command.args(more).env("NOTIFY_SOCKET", notify).stderr(Stdio::piped()).spawn().unwrap();
        Self(child)
    }

    /// Reads the log until a line has this message.
    fn until(&mut self, message: &str) {
        let mut lines = BufReader::new(self.0.stderr.as_mut().unwrap());
        let mut all = String::new();
        loop {
            let before = all.len();
            if lines.read_line(&mut all).unwrap() == 0 {
                panic!("the agent ended: {all}");
            }
            let line: serde_json::Value = serde_json::from_str(&all[before..]).unwrap();
            if line["fields"]["message"] == message {
                return;
            }
        }
    }

    fn terminate(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "the agent does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the agent tells its service manager next.
fn told(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = manager.recv(&mut message).unwrap();
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// Status line and body of a GET.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn in_namespace(test: impl FnOnce() + Send) {
    Namespace::create()
        .unwrap()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let loopback = netlink.link("lo").unwrap().index;
            netlink.set_up(loopback).unwrap();
            test();
        })
        .unwrap();
}

#[test]
fn an_agent_says_that_it_is_ready_serves_its_ports_and_ends_in_good_order() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let mut agent = Agent::start(folder.path(), &[], &socket);
        agent.until("ready");
        assert!(told(&manager).starts_with("STATUS=waiting"));
        let said = told(&manager);
        assert!(said.contains("READY=1") && said.contains("STATUS=the node serves"), "{said}");

        for path in ["/healthz", "/livez"] {
            let (status, body) = get("127.0.0.1:10256", path);
            assert_eq!(status, "HTTP/1.1 200 OK", "{path}: {body}");
            let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert!(answer["healthy"] == true && answer["status"]["IPv6"]["healthy"] == true, "{body}");
        }
        assert_eq!(get("127.0.0.1:10249", "/healthz").1, "ok");
        let (_, metrics) = get("127.0.0.1:10249", "/metrics");
        for line in
            ["sluice_ready 1", "sluice_manifest_faults 0", "kubeproxy_proxy_healthz_total{code=\"200\"} 1"]
        {
            assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
        }
        assert_eq!(get("127.0.0.1:10249", "/proxyMode").1, "ebpf");
        let (_, slis) = get("127.0.0.1:10249", "/metrics/slis");
        assert!(slis.contains("kubernetes_healthcheck{name=\"services\",type=\"healthz\"} 1"), "{slis}");
        let config: serde_json::Value = serde_json::from_str(&get("127.0.0.1:10249", "/configz").1).unwrap();
        assert!(config["sluice"]["manifests"].is_string(), "{config}");
        let (_, flags) = get("127.0.0.1:10249", "/flagz");
        assert!(flags.lines().any(|line| line.starts_with("manifests=/")), "{flags}");
        let state = folder.path().join("state");
        let asked =
            sluice(&["status", "--services", "--node-name=one", "--state-dir", state.to_str().unwrap()])
                .args(["--bpffs-dir", folder.path().to_str().unwrap()])
                .output()
                .unwrap();
        let said = String::from_utf8_lossy(&asked.stdout);
        assert_eq!(asked.status.code(), Some(0), "{said}");
        for line in [
            "agent     healthy",
            "trouble   there is no Node one",
            "node      one: no pod can be attached yet",
            "pods      0 attached",
        ] {
            assert!(said.lines().any(|found| found.starts_with(line)), "{line} in {said}");
        }
        let (_, status) = get("127.0.0.1:10249", "/statusz");
        assert!(status.contains("Binary version: ") && status.contains("/metrics/slis"), "{status}");
        assert_eq!(get("127.0.0.1:10256", "/nothing").0, "HTTP/1.1 404 Not Found");

        // A second agent would undo the first one's work.
        let none = ["--healthz-address=none", "--metrics-address=none"];
        let mut second = Agent::start(folder.path(), &none, &socket);
        assert_eq!(second.ended().code(), Some(1));

        agent.terminate();
        assert_eq!(agent.ended().code(), Some(0));
        assert!(told(&manager).contains("STOPPING=1"));
        let asked = output(&["status", "--node-name=one", "--state-dir", state.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&asked.stdout);
        assert!(
            asked.status.code() == Some(1) && said.contains("does not answer at 0.0.0.0:10256"),
            "{said}"
        );
    });
}

#[test]
fn a_service_manager_that_watches_gets_signs_of_life() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let manifests = folder.path().join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        let mut command = sluice(&["agent", "--proxy=false", "--dns=false", "--resync-period=1h"]);
        command.args(["--manifests", manifests.to_str().unwrap()]);
        command.args(["--state-dir", folder.path().join("state").to_str().unwrap()]);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "100000");
        let _agent = Agent(command.stderr(Stdio::null()).spawn().unwrap());
        let mut signs = 0;
        while signs < 5 {
            signs += usize::from(told(&manager).contains("WATCHDOG=1"));
        }
    });
}

#[test]
fn a_node_that_is_about_to_go_takes_no_more_traffic_and_is_not_restarted() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(folder.path(), &[], Path::new("/nowhere"));
        agent.until("ready");
        let node = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\n\
                    spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}\n";
        fs::write(folder.path().join("manifests/node.yaml"), node).unwrap();
        let start = Instant::now();
        while get("127.0.0.1:10256", "/healthz").0 != "HTTP/1.1 503 Service Unavailable" {
            assert!(start.elapsed() < LIMIT, "/healthz still says that all is well");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(get("127.0.0.1:10256", "/livez").0, "HTTP/1.1 200 OK");
    });
}

#[test]
fn what_cannot_be_started_ends_with_its_reason() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:10256").unwrap();
        let mut agent =
            Agent::start(folder.path(), &["--healthz-address=127.0.0.1:10256"], Path::new("/nowhere"));
        agent.until("cannot listen on 127.0.0.1:10256 for /healthz: Address already in use (os error 98)");
        assert_eq!(agent.ended().code(), Some(1));
        drop(taken);
        let mut agent = Agent::start(folder.path(), &["--manifests=/does/not/exist"], Path::new("/nowhere"));
        assert_eq!(agent.ended().code(), Some(2), "a flag is given once");
    });
}

#[test]
fn kube_proxys_command_line_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let written = place("written.conf");
    let done = output(&["kube-proxy", "--write-config-to", &written, "--cluster-cidr=10.244.0.0/16"]);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let text = fs::read_to_string(&written).unwrap();
    assert!(text.starts_with("apiVersion: kubeproxy.config.k8s.io/v1alpha1\n"), "{text}");
    let own = place("own.yaml");
    fs::write(&own, format!("manifests: {}\nnfConntrack: none\n", place("manifests"))).unwrap();
    let table: [(&[&str], i32, &str); 7] = [
        (&["--help"], 0, ""),
        (&["--version=true"], 0, ""),
        (
            &["--init-only", "--config", &written, "--sluice-config", &own, "-v=1"],
            0,
            "mode: iptables is kube-proxy's",
        ),
        (&["--no-such-flag"], 2, "unknown flag: --no-such-flag"),
        (&["--cluster-cidr=10.244.0.0"], 2, "--cluster-cidr: \"10.244.0.0\" is not a network"),
        (&["--config", &place("none")], 78, "none: No such file"),
        (&["--config", &own], 78, "apiVersion: \"\" is not kubeproxy.config.k8s.io/v1alpha1"),
    ];
    for (flags, status, expected) in table {
        let done = output(&[&["kube-proxy"], flags].concat());
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(status), "{flags:?}: {said}");
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
    // Under kube-proxy's own name, nothing of the command line changes at all.
    let link = place("kube-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), &link).unwrap();
    let done = Command::new(link).arg("--version").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        format!("sluice kube-proxy {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn what_stands_in_for_kube_proxy_ends_when_its_configuration_changes() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(place("manifests")).unwrap();
        let (theirs, own) = (place("config.conf"), place("own.yaml"));
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nlogging: {format: json}\n";
        fs::write(&theirs, text).unwrap();
        let settings =
            format!("manifests: {}\nstateDir: {}\nproxy: false\n", place("manifests"), place("state"));
        fs::write(&own, settings).unwrap();
        let mut command = sluice(&["kube-proxy", "--sluice-config", &own, "--config", &theirs]);
        let mut agent = Agent(command.stderr(Stdio::piped()).spawn().unwrap());
        agent.until("sluice agent");
        fs::write(&theirs, format!("{text}mode: nftables\n")).unwrap();
        assert_eq!(agent.ended().code(), Some(1));
    });
}
