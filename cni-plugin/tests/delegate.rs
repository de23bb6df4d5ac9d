//! Addresses from another plugin: a script that notes what it was asked and answers from a file. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::{Answer, Node, Pod, assert_reaches};
use serde_json::{Value, json};

const SCRIPT: &str = r#"#!/bin/sh
cd "${0%/*}"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >> asked
cat > "stdin.$CNI_COMMAND"
if [ -e "fail.$CNI_COMMAND" ]; then cat "fail.$CNI_COMMAND"; exit 1; fi
if [ "$CNI_COMMAND" = ADD ]; then cat answer; fi
"#;

struct Ipam<'a> {
    node: &'a Node,
}

impl<'a> Ipam<'a> {
    fn new(node: &'a Node, answer: &Value) -> Self {
        let plugins = node.state_dir().join("plugins");
        fs::create_dir(&plugins).unwrap();
        fs::write(plugins.join("others"), SCRIPT).unwrap();
        fs::set_permissions(plugins.join("others"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(plugins.join("answer"), answer.to_string()).unwrap();
        Self { node }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.node.state_dir().join("plugins").join(name)
    }

    fn call(&self, command: &str, id: &str, netns: Option<&Path>, config: &Value) -> Answer {
        let mut process: Command = self.node.command(command, id, netns);
        process.env("CNI_PATH", self.node.state_dir().join("plugins")).env("PATH", "/usr/bin:/bin");
        Answer::from(&self.node.run(process, &config.to_string()))
    }

    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.file("asked"));
        text.lines().map(str::to_owned).collect()
    }
}

fn answer() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "ips": [{ "address": "10.66.0.9/24", "gateway": "10.66.0.1" }, { "address": "fd66::9/64", "gateway": "fd66::1" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": { "nameservers": ["192.0.2.53"] },
    })
}

#[test]
fn another_plugin_gives_the_addresses_and_gets_them_back() {
    let node = Node::new();
    let ipam = Ipam::new(&node, &answer());
    let config = node.config(json!({ "ipam": { "type": "others", "pool": "blue" } }));
    let pod = Pod::new("one");
    let result = ipam.call("ADD", "one", Some(&pod.path()), &config).ok();
    assert_eq!(ipam.asked(), ["ADD one eth0"]);
    let stdin: Value = serde_json::from_slice(&fs::read(ipam.file("stdin.ADD")).unwrap()).unwrap();
    assert_eq!(stdin, config, "it gets the configuration as we got it");
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.66.0.9/24", "gateway": "10.66.0.1", "interface": 2 })
    );
    assert_eq!(
        result["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "10.66.0.1" }, { "dst": "::/0", "gw": "fd66::1" }])
    );
    assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
    assert_reaches(&node.namespace, &pod.namespace, "fd66::9".parse().unwrap());

    let mut check = config.clone();
    check["prevResult"] = result;
    ipam.call("CHECK", "one", Some(&pod.path()), &check).ok();
    ipam.call("STATUS", "", None, &config).ok();
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "one", "ifname": "eth0" }]);
    ipam.call("GC", "", None, &gc).ok();
    assert_eq!(ipam.asked(), ["CHECK one eth0", "STATUS  ", "GC  "]);
    assert!(pod.netlink().find_link("eth0").unwrap().is_some());

    ipam.call("DEL", "one", Some(&pod.path()), &config).ok();
    assert!(pod.netlink().find_link("eth0").unwrap().is_none());
    ipam.call("DEL", "one", None, &config).ok();
    assert_eq!(ipam.asked(), ["DEL one eth0", "DEL one eth0"], "it is asked even if we know nothing");
}

#[test]
fn its_failures_are_passed_on_and_ours_give_the_addresses_back() {
    let node = Node::new();
    let ipam = Ipam::new(&node, &answer());
    let config = node.config(json!({ "ipam": { "type": "others" } }));
    let pod = Pod::new("one");
    fs::write(ipam.file("fail.ADD"), r#"{"code":11,"msg":"no lease yet","details":"the server is silent"}"#)
        .unwrap();
    let failed = ipam.call("ADD", "one", Some(&pod.path()), &config);
    assert_eq!(failed.json["details"], "the server is silent");
    assert_eq!(failed.error(), (11, "ipam plugin others: no lease yet (code 11)".to_owned()));
    fs::write(ipam.file("fail.ADD"), "nonsense").unwrap();
    let (code, msg) = ipam.call("ADD", "one", Some(&pod.path()), &config).error();
    assert_eq!((code, msg.as_str()), (105, "ipam plugin others: it ended with exit status: 1"));
    fs::remove_file(ipam.file("fail.ADD")).unwrap();
    ipam.asked();

    let refused = node.config(json!({ "ipam": { "type": "others" }, "requireDatapath": true }));
    assert_eq!(ipam.call("ADD", "one", Some(&pod.path()), &refused).error().0, 11);
    assert_eq!(ipam.asked(), ["ADD one eth0", "DEL one eth0"]);
    assert!(pod.netlink().find_link("eth0").unwrap().is_none());

    let unknown = node.config(json!({ "ipam": { "type": "nowhere" } }));
    let (code, msg) = ipam.call("ADD", "one", Some(&pod.path()), &unknown).error();
    assert_eq!(code, 7);
    assert!(msg.starts_with("ipam.type \"nowhere\": no such plugin in CNI_PATH="), "{msg}");
    let sly = node.config(json!({ "ipam": { "type": "../others" } }));
    assert_eq!(ipam.call("ADD", "one", Some(&pod.path()), &sly).error().0, 7);
}
