//! The pod's entry in the datapath, with stand-ins for what the agent pins. Each test has a bpf file system of its
//! own, in a mount namespace of its own. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{fs, path::PathBuf};

use common::{
    Pod,
    datapath::{bpftool, endpoints, has_tcx, links, with_datapath},
};
use sluice_cni::store;

#[test]
fn a_pod_is_in_the_datapath_when_add_returns_and_out_when_del_returns() {
    with_datapath(16, |node, config| {
        let pod = Pod::new("one");
        node.add(&pod, config).ok();
        let attachment = store::list(node.state_dir()).unwrap().attachments.remove(0);
        let host = node.netlink().link(&attachment.host_veth).unwrap();

        let mut value = host.index.to_ne_bytes().to_vec();
        value.extend([0; 4]);
        value.extend(pod.netlink().link("eth0").unwrap().mac.unwrap().0);
        value.extend(node.netlink().link("sluice0").unwrap().mac.unwrap().0);
        value.extend([0; 4]);
        let v4 = [&[0; 10][..], &[0xff, 0xff, 10, 77, 0, 2]].concat();
        let v6 = [&[0xfd, 0x77][..], &[0; 13], &[2]].concat();
        assert_eq!(endpoints(config), [(v4, value.clone()), (v6, value)]);

        let name = format!("from_pod-{}", attachment.host_veth);
        assert_eq!(links(config), [&*name]);
        let pin = format!("{}/v1/links/{name}", config["bpffs"].as_str().unwrap());
        if has_tcx() {
            let link = node.namespace.run(|| bpftool(&["link", "show", "pinned", &pin])).unwrap();
            // Debian 12's bpftool does not know the name of BPF_LINK_TYPE_TCX.
            assert!(link["type"] == 11 || link["type"] == "tcx", "{link}");
        } else {
            let program = node.namespace.run(|| bpftool(&["prog", "show", "pinned", &pin])).unwrap();
            assert_eq!(program["type"], "sched_cls");
        }
        node.del(&pod, config).ok();
        assert!(endpoints(config).is_empty());
        assert!(links(config).is_empty());
    });
}

#[test]
fn what_the_bridge_keeps_apart_the_datapath_leaves_to_it() {
    with_datapath(16, |node, config| {
        let mut isolated = config.clone();
        isolated["portIsolation"] = true.into();
        node.add(&Pod::new("one"), &isolated).ok();
        let flags = |index: usize| endpoints(config)[index].1[4];
        assert_eq!([flags(0), flags(1)], [2, 2]);
        node.gc(config, &[]).ok();
        node.add(&Pod::new("two"), config).ok();
        assert_eq!([flags(0), flags(1)], [0, 0]);
    });
}

#[test]
fn a_container_without_addresses_is_none_of_the_datapaths() {
    with_datapath(16, |node, config| {
        let mut bare = config.clone();
        bare["ipam"] = serde_json::json!({});
        bare["requireDatapath"] = true.into();
        let pod = Pod::new("one");
        bare["prevResult"] = node.add(&pod, &bare).ok();
        assert!(endpoints(config).is_empty());
        assert!(links(config).is_empty());
        node.call("CHECK", &pod, &bare).ok();
        node.gc(&bare, &["one"]).ok();
        node.call("CHECK", &pod, &bare).ok();
        node.del(&pod, &bare).ok();
    });
}

#[test]
fn check_misses_what_is_gone_and_gc_removes_what_is_too_much() {
    with_datapath(16, |node, config| {
        let pods = [Pod::new("one"), Pod::new("two")];
        let results: Vec<_> = pods.iter().map(|pod| node.add(pod, config).ok()).collect();
        let check = |index: usize| {
            let mut config = config.clone();
            config["prevResult"] = results[index].clone();
            node.call("CHECK", &pods[index], &config)
        };
        check(0).ok();
        let entries = endpoints(config);
        let map = format!("{}/v1/maps/endpoints", config["bpffs"].as_str().unwrap());
        let one: Vec<String> = entries[0].0.iter().map(u8::to_string).collect();
        let key: Vec<&str> = one.iter().map(String::as_str).collect();
        bpftool(&[&["map", "delete", "pinned", &map, "key"], &key[..]].concat());
        let (code, msg) = check(0).error();
        assert_eq!((code, msg.as_str()), (103, "address 10.77.0.2 has no entry in the map of endpoints"));
        check(1).ok();
        let pin = links(config).into_iter().find(|pin| {
            *pin == format!("from_pod-{}", results[1]["interfaces"][1]["name"].as_str().unwrap())
        });
        fs::remove_file(format!("{}/v1/links/{}", config["bpffs"].as_str().unwrap(), pin.unwrap())).unwrap();
        assert!(check(1).error().1.starts_with("the program from_pod is not attached"));

        // Their records are lost: GC knows what is ours by its marks, in the datapath too.
        fs::remove_dir_all(node.state_dir().join("cni")).unwrap();
        node.gc(config, &[]).ok();
        assert!(endpoints(config).is_empty());
        assert!(links(config).is_empty());
        let left: Vec<_> = node.netlink().links().unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(left, ["lo", "sluice0"]);
    });
}

#[test]
fn a_pod_whose_record_is_damaged_leaves_the_datapath_too() {
    with_datapath(16, |node, config| {
        let pod = Pod::new("one");
        node.add(&pod, config).ok();
        let boot = fs::read_dir(node.state_dir().join("cni")).unwrap().next().unwrap().unwrap().path();
        fs::write(boot.join("pods/attachments/one:eth0"), "{\"state\":1").unwrap();
        node.del(&pod, config).ok();
        assert!(endpoints(config).is_empty());
        assert!(links(config).is_empty());
        assert!(pod.netlink().find_link("eth0").unwrap().is_none());
    });
}

#[test]
fn a_datapath_that_refuses_undoes_the_add() {
    // Room for one of the pod's two addresses.
    with_datapath(1, |node, config| {
        let pod = Pod::new("one");
        let (code, msg) = node.add(&pod, config).error();
        assert_eq!(code, 104);
        assert!(msg.starts_with("cannot enter fd77::2/64 into the map of endpoints: "), "{msg}");
        assert!(endpoints(config).is_empty());
        assert!(links(config).is_empty());
        assert!(store::list(node.state_dir()).unwrap().attachments.is_empty());
        assert!(pod.netlink().find_link("eth0").unwrap().is_none());
    });
}

#[test]
fn a_pin_that_an_earlier_pod_left_is_replaced() {
    with_datapath(16, |node, config| {
        let pod = Pod::new("one");
        node.add(&pod, config).ok();
        let pin = links(config).remove(0);
        // Its state is lost and its device goes with its namespace: only the pin is left.
        fs::remove_dir_all(node.state_dir().join("cni")).unwrap();
        let host = node.netlink().link(pin.strip_prefix("from_pod-").unwrap()).unwrap();
        node.netlink().delete_link(host.index).unwrap();
        assert_eq!(links(config), [&*pin]);
        node.add(&Pod::new("one"), config).ok();
        assert_eq!(links(config), [pin]);
    });
}

#[test]
fn a_map_of_another_layout_is_refused() {
    with_datapath(16, |node, config| {
        let map = PathBuf::from(config["bpffs"].as_str().unwrap()).join("v1/maps/endpoints");
        fs::remove_file(&map).unwrap();
        let path = map.to_str().unwrap();
        bpftool(&[
            "map",
            "create",
            path,
            "type",
            "hash",
            "key",
            "16",
            "value",
            "8",
            "entries",
            "4",
            "name",
            "endpoints",
        ]);
        let (code, msg) = node.add(&Pod::new("one"), config).error();
        assert_eq!(code, 104);
        assert!(msg.ends_with("its entries are of 16 and 8 bytes"), "{msg}");
    });
}
