//! SIGKILL at every system call of ADD and of DEL, one after the other, none left out; after each, DEL or GC must
//! leave the node as it was: links, addresses, neighbours, files, map entries and pins. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{fs, io::Write, net::IpAddr, path::Path, process::Command};

use common::{
    Node, Pod,
    datapath::{endpoints, host_ports, links, with_datapath},
};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use sluice_cni::store;
use sluice_netlink::{PacketFilter, host_port, owned, spoof};

/// Runs the plugin and kills it when it is about to make its `count`th system call after it began to read its
/// configuration. Says whether it came to that.
#[expect(clippy::zombie_processes, reason = "the tracer has waited for it already")]
fn kill_at(node: &Node, mut command: Command, stdin: &str, count: usize) -> bool {
    node.namespace
        .run(move || {
            let mut child = command.spawn().unwrap();
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            // Until here it is the same every time: it waits for its standard input.
            while !fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("0 0x0 ")) {
                std::thread::yield_now();
            }
            ptrace::attach(pid).unwrap();
            // Only what this thread traces: other tests have children too.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            waitpid(pid, Some(flags)).unwrap();
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
            ptrace::setoptions(pid, options).unwrap();
            child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
            ptrace::syscall(pid, None).unwrap();

            let mut seen = 0;
            let mut inside = std::collections::BTreeSet::new();
            let killed = loop {
                match waitpid(None::<Pid>, Some(flags)) {
                    Ok(WaitStatus::PtraceSyscall(thread)) => {
                        // Each thread's stops alternate between entering a call and leaving it.
                        if !inside.remove(&thread) {
                            inside.insert(thread);
                            seen += 1;
                        }
                        if seen == count {
                            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
                            break true;
                        }
                        ptrace::syscall(thread, None).unwrap();
                    }
                    // A thread that is born stops first, and one that stops for another reason just goes on.
                    Ok(WaitStatus::Stopped(thread, _) | WaitStatus::PtraceEvent(thread, _, _)) => {
                        ptrace::syscall(thread, None).unwrap();
                    }
                    Ok(WaitStatus::Exited(ended, code)) if ended == pid => {
                        assert_eq!(code, 0, "the plugin failed without being killed");
                        return false;
                    }
                    Ok(_) => {}
                    Err(error) => panic!("the plugin is lost: {error}"),
                }
            };
            while !matches!(waitpid(None::<Pid>, Some(flags)), Ok(WaitStatus::Signaled(ended, ..)) if ended == pid) {}
            killed
        })
        .unwrap()
}

fn inventory(node: &Node, config: &Value) -> Vec<String> {
    let mut list = node.inventory();
    if Path::new(config["bpffs"].as_str().unwrap()).exists() {
        list.extend(links(config));
        list.extend(endpoints(config).into_iter().map(|(key, _)| format!("endpoint {key:?}")));
        list.extend(host_ports(config).into_iter().map(|(key, _)| format!("host port {key:?}")));
    }
    let (open, filtered) = node
        .namespace
        .run(|| {
            let mut filter = PacketFilter::find().unwrap().unwrap();
            let names = ["keep", "victim"].map(|id| owned::host_veth_name(id, "eth0"));
            let filtered =
                names.map(|name| format!("{name}: {}", spoof::is_filtered(&mut filter, &name).unwrap()));
            (host_port::list().unwrap(), filtered)
        })
        .unwrap();
    list.extend(filtered);
    list.extend(open.into_iter().map(|port| format!("host port {port:?}")));
    list
}

/// The configuration for a container that asks for all there is to be had.
fn asking(config: &Value, host_port: u16) -> Value {
    let mut config = config.clone();
    config["macspoofchk"] = true.into();
    config["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": host_port, "containerPort": 80, "protocol": "udp" }],
        "bandwidth": { "ingressRate": 80000, "ingressBurst": 80000, "egressRate": 80000, "egressBurst": 80000 },
    });
    config
}

/// With a datapath, and without one, where the packet filter does its work.
fn enumerate(command: &str, clean_up: impl Fn(&Node, &Pod, &Value) + Sync) {
    with_datapath(16, |node, config| enumerate_on(node, config, command, &clean_up));
    let node = Node::new();
    enumerate_on(&node, &node.config(json!({ "ipMasq": true })), command, &clean_up);
}

/// Kills `command` at each of its system calls in turn, cleans up, and compares.
fn enumerate_on(
    node: &Node,
    config: &Value,
    command: &str,
    clean_up: &(impl Fn(&Node, &Pod, &Value) + Sync),
) {
    let keep = Pod::new("keep");
    node.add(&keep, &asking(config, 1)).ok();
    let config = &asking(config, 2);
    // The record directory's files are there from the first ADD on.
    let before = inventory(node, config);
    let mut count = 1;
    loop {
        let pod = Pod::new("victim");
        if command == "DEL" {
            node.add(&pod, config).ok();
        }
        let process = node.command(command, &pod.id, Some(&pod.path()));
        let killed = kill_at(node, process, &config.to_string(), count);
        let listing = store::list(node.state_dir()).unwrap();
        assert!(listing.damaged.is_empty(), "killed at {count}: {:?}", listing.damaged);
        clean_up(node, &pod, config);
        assert_eq!(inventory(node, config), before, "killed at system call {count}");
        assert!(pod.netlink().find_link("eth0").unwrap().is_none(), "killed at system call {count}");
        if !killed {
            break;
        }
        count += 1;
    }
    assert!(count > 40, "only {count} system calls were seen");
    // And the node is as good as new.
    let pod = Pod::new("after");
    node.add(&pod, config).ok();
}

#[test]
fn del_takes_apart_what_an_add_left_that_was_killed_anywhere() {
    enumerate("ADD", |node, pod, config| {
        node.del(pod, config).ok();
    });
}

#[test]
fn gc_takes_apart_what_an_add_left_that_was_killed_anywhere() {
    enumerate("ADD", |node, _, config| {
        node.gc(config, &["keep"]).ok();
    });
}

#[test]
fn del_finishes_what_a_del_began_that_was_killed_anywhere() {
    enumerate("DEL", |node, pod, config| {
        node.del(pod, config).ok();
    });
}

#[test]
fn gc_finishes_what_a_del_began_that_was_killed_anywhere() {
    enumerate("DEL", |node, _, config| {
        node.gc(config, &["keep"]).ok();
    });
}

/// What is done to a node, by real processes.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(usize),
    Del(usize),
    /// Killed at its so many-th system call, if it comes that far.
    KilledAdd(usize, usize),
    KilledDel(usize, usize),
    /// With these pods valid, one a bit.
    Gc(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pod = 0..PODS;
    let step = prop_oneof![
        4 => pod.clone().prop_map(Step::Add),
        2 => pod.clone().prop_map(Step::Del),
        3 => (pod.clone(), 1..130_usize).prop_map(|(pod, call)| Step::KilledAdd(pod, call)),
        2 => (pod, 1..85_usize).prop_map(|(pod, call)| Step::KilledDel(pod, call)),
        1 => any::<u8>().prop_map(Step::Gc),
    ];
    proptest::collection::vec(step, 5..25)
}

const PODS: usize = 6;

/// What is known of a pod: attached with this address, not attached, or left by a killed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Yes(IpAddr),
    Perhaps,
}

fn play(node: &Node, config: &Value, steps: &[Step]) {
    // Room for 5 of the 6.
    let mut config = config.clone();
    config["ipam"] = json!({ "ranges": [[{ "subnet": "10.77.0.0/29" }]] });
    let config = &config;
    let pods: Vec<Pod> = (0..PODS).map(|index| Pod::new(&format!("p{index}"))).collect();
    let mut known = [Known::No; PODS];
    for step in steps {
        match *step {
            Step::Add(pod) => {
                let answer = node.add(&pods[pod], config);
                if answer.success {
                    // After a killed command it may: nothing, or everything, may have been done by then.
                    assert!(!matches!(known[pod], Known::Yes(_)), "{step:?}: it is attached already");
                    let address = answer.addresses()[0];
                    assert!(!known.contains(&Known::Yes(address)), "{step:?}: {address} is given twice");
                    known[pod] = Known::Yes(address);
                } else {
                    match answer.error() {
                        (101, _) => assert_ne!(known[pod], Known::No),
                        // All that is not known to be free must be held.
                        (102, _) => assert!(known.iter().filter(|known| **known != Known::No).count() >= 5),
                        other => panic!("{step:?}: {other:?}"),
                    }
                }
            }
            Step::Del(pod) => {
                node.del(&pods[pod], config).ok();
                known[pod] = Known::No;
            }
            Step::KilledAdd(pod, call) if known[pod] == Known::No => {
                let room = known.iter().filter(|known| **known != Known::No).count() < 5;
                if room {
                    let command = node.command("ADD", &pods[pod].id, Some(&pods[pod].path()));
                    kill_at(node, command, &config.to_string(), call);
                    known[pod] = Known::Perhaps;
                }
            }
            Step::KilledAdd(..) => {}
            Step::KilledDel(pod, call) => {
                let command = node.command("DEL", &pods[pod].id, Some(&pods[pod].path()));
                let killed = kill_at(node, command, &config.to_string(), call);
                known[pod] = if !killed || known[pod] == Known::No { Known::No } else { Known::Perhaps };
            }
            Step::Gc(valid) => {
                let valid: Vec<usize> = (0..PODS).filter(|pod| valid & (1 << pod) != 0).collect();
                let ids: Vec<&str> = valid.iter().map(|pod| pods[*pod].id.as_str()).collect();
                node.gc(config, &ids).ok();
                for pod in (0..PODS).filter(|pod| !valid.contains(pod)) {
                    known[pod] = Known::No;
                }
            }
        }
    }
    for pod in &pods {
        node.del(pod, config).ok();
    }
    let five: Vec<Pod> = (0..5).map(|index| Pod::new(&format!("after{index}"))).collect();
    let mut addresses: Vec<_> = five.iter().map(|pod| node.add(pod, config).addresses()[0]).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 5, "every address can be given again");
    node.gc(config, &[]).ok();
}

#[test]
fn whatever_is_killed_in_whatever_order_no_address_is_given_twice_or_lost() {
    with_datapath(16, |node, config| {
        let config = config.clone();
        let mut runner = TestRunner::new(Config {
            cases: 10,
            max_shrink_iters: 50,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&steps(), |steps| {
                play(node, &config, &steps);
                Ok(())
            })
            .unwrap();
    });
}
