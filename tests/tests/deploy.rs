//! What a cluster applies, held against the types of the API and against the programs it is for.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test's own files")]

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_agent::api::Kind;
use sluice_agent::cli::{Cli, Command};
use sluice_agent::config::{Config, Settings};

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All objects of all manifests.
fn objects() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let manifests = files.filter(|file| file.ends_with(".yaml"));
    manifests.flat_map(|file| serde_saphyr::from_multiple::<Value>(&text(&file)).unwrap()).collect()
}

/// The object of a kind, as its type; no field of the manifest may be unknown to the type.
fn object<K: DeserializeOwned + Serialize>(kind: &str) -> K {
    let found: Vec<Value> = objects().into_iter().filter(|object| object["kind"] == kind).collect();
    let [object] = &found[..] else { panic!("{} objects of kind {kind}", found.len()) };
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    known(object, &serde_json::to_value(&typed).unwrap(), kind);
    typed
}

fn known(written: &Value, typed: &Value, path: &str) {
    match (written, typed) {
        (Value::Object(written), Value::Object(typed)) => {
            for (name, value) in written {
                let path = format!("{path}.{name}");
                known(value, typed.get(name).unwrap_or_else(|| panic!("{path} is no field")), &path);
            }
        }
        (Value::Array(written), Value::Array(typed)) => {
            assert_eq!(written.len(), typed.len(), "{path}");
            written.iter().zip(typed).enumerate().for_each(|(at, (written, typed))| {
                known(written, typed, &format!("{path}[{at}]"));
            });
        }
        _ => assert_eq!(written, typed, "{path}"),
    }
}

fn settings() -> Settings {
    let map: ConfigMap = object("ConfigMap");
    serde_saphyr::from_str(&map.data.unwrap()["agent.yaml"]).unwrap()
}

#[test]
fn every_object_is_of_a_kind_that_is_checked_here() {
    let kinds: BTreeSet<String> =
        objects().iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    let checked = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), checked);
}

#[test]
fn the_role_allows_what_is_watched_and_events_and_nothing_else() {
    let role: ClusterRole = object("ClusterRole");
    let mut granted = BTreeSet::new();
    for rule in role.rules.unwrap() {
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.clone().unwrap() {
                for verb in &rule.verbs {
                    assert!(granted.insert((group.clone(), resource.clone(), verb.clone())));
                }
            }
        }
    }
    let mut expected = BTreeSet::new();
    for kind in Kind::ALL {
        for verb in ["list", "watch"] {
            expected.insert((kind.group().to_owned(), kind.name().to_owned(), verb.to_owned()));
        }
    }
    expected.insert(("events.k8s.io".to_owned(), "events".to_owned(), "create".to_owned()));
    assert_eq!(granted, expected);

    let account: ServiceAccount = object("ServiceAccount");
    let binding: ClusterRoleBinding = object("ClusterRoleBinding");
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(
        (&subject.name, &subject.namespace),
        (&account.metadata.name.unwrap(), &account.metadata.namespace)
    );
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
}

#[test]
fn the_agent_accepts_its_configuration_and_its_arguments() {
    let set: DaemonSet = object("DaemonSet");
    let pod = set.spec.clone().unwrap().template.spec.unwrap();
    let line = |container: &k8s_openapi::api::core::v1::Container| {
        let arguments = container.args.clone().unwrap().into_iter();
        let arguments = arguments.map(|argument| argument.replace("$(NODE_NAME)", "node1"));
        Cli::try_parse_from(["sluice".to_owned()].into_iter().chain(arguments)).unwrap().command
    };
    let install = &pod.init_containers.as_ref().unwrap()[0];
    let Command::InstallPlugin { folder } = line(install) else { panic!("the first container installs") };
    assert_eq!(folder, Path::new("/host/opt/cni/bin"));

    let agent = &pod.containers[0];
    let Command::Agent(options) = line(agent) else { panic!("the main container is the agent") };
    assert_eq!(options.config.as_deref(), Some(Path::new("/etc/sluice/agent.yaml")));
    let config = Config::new(options.settings.or(settings())).unwrap();
    assert_eq!(&*config.node_name, "node1");

    // What it writes to is mounted from the host, and nothing is mounted from nowhere.
    let mounts = agent.volume_mounts.clone().unwrap();
    let mounted = |path: &Path| mounts.iter().any(|mount| path.starts_with(&mount.mount_path));
    let sysctl = config.sysctl_dir.unwrap();
    for path in [&config.state_dir, &config.bpffs_dir, &config.cgroup_root.unwrap(), &sysctl.join("net")] {
        assert!(mounted(path), "{} is not mounted", path.display());
    }
    assert_eq!(sysctl, Path::new("/host/proc/sys"));
    let volumes: BTreeSet<String> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    let containers =
        pod.containers.iter().chain(&pod.init_containers.clone().unwrap()).cloned().collect::<Vec<_>>();
    let used = containers.into_iter().flat_map(|container| container.volume_mounts.unwrap());
    assert_eq!(used.map(|mount| mount.name).collect::<BTreeSet<_>>(), volumes);

    // The probes ask where the agent answers.
    let port = IntOrString::Int(config.healthz_address.unwrap().port().into());
    for probe in [&agent.startup_probe, &agent.liveness_probe, &agent.readiness_probe] {
        assert_eq!(probe.clone().unwrap().http_get.unwrap().port, port);
    }
    assert_eq!(pod.host_network, Some(true));
    // Two are there at once while one hands over to the other: none may hold a port by its declaration, and the new one
    // waits for the old one to be told to end.
    assert_eq!(agent.ports, None);
    let update = set.spec.unwrap().update_strategy.unwrap().rolling_update.unwrap();
    assert_eq!(update.max_unavailable, Some(IntOrString::Int(0)));
    assert!(update.max_surge.is_some() && config.handover_wait >= std::time::Duration::from_secs(600));
}

/// The set of pods that clean up.
fn cleanup() -> DaemonSet {
    let written: Value = serde_saphyr::from_str(&text("cleanup/daemonset.yaml")).unwrap();
    let typed: DaemonSet = serde_json::from_value(written.clone()).unwrap();
    known(&written, &serde_json::to_value(&typed).unwrap(), "cleanup");
    typed
}

#[test]
fn who_cleans_up_sees_and_may_do_what_the_agent_does() {
    let pod_of = |set: DaemonSet| set.spec.unwrap().template.spec.unwrap();
    let (agent, cleanup) = (pod_of(object("DaemonSet")), pod_of(cleanup()));
    assert_eq!(cleanup.host_network, agent.host_network);
    assert_eq!(cleanup.tolerations, agent.tolerations, "on the same nodes");
    assert_eq!(cleanup.node_selector, agent.node_selector);
    let container = &cleanup.init_containers.as_ref().unwrap()[0];
    let words = container.args.iter().flatten().map(|word| word.replace("$(NODE_NAME)", "node1"));
    let command = Cli::try_parse_from(["sluice".to_owned()].into_iter().chain(words)).unwrap().command;
    let Command::Cleanup(options) = command else { panic!("it cleans up") };
    assert_eq!(options.config.as_deref(), Some(Path::new("/etc/sluice/agent.yaml")));
    assert_eq!(container.image, agent.containers[0].image);
    assert_eq!(container.command, agent.containers[0].command);
    let capabilities = |container: &k8s_openapi::api::core::v1::Container| {
        container.security_context.clone().unwrap().capabilities.unwrap()
    };
    assert_eq!(capabilities(container), capabilities(&agent.containers[0]));
    let mounts = agent.containers[0].volume_mounts.as_ref().unwrap();
    assert!(container.volume_mounts.iter().flatten().all(|mount| mounts.contains(mount)));
    let volumes = agent.volumes.as_ref().unwrap();
    assert!(cleanup.volumes.iter().flatten().all(|volume| volumes.contains(volume)));
}

#[test]
fn the_unit_starts_the_agent_as_it_wants_to_be_started() {
    let unit = text("sluice.service");
    let value = |name: &str| {
        let values: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(&format!("{name}="))).collect();
        let [value] = values[..] else { panic!("{name}: {values:?}") };
        value
    };
    let words = value("ExecStart").split(' ').skip(1);
    let words = ["sluice"].into_iter().chain(words);
    let Command::Agent(options) = Cli::try_parse_from(words).unwrap().command else { panic!("no agent") };
    assert_eq!(options.config.as_deref(), Some(Path::new("/etc/sluice/agent.yaml")));
    // It tells the manager when it is ready, and that it is alive; a wrong configuration is no reason to start again.
    assert_eq!((value("Type"), value("RestartPreventExitStatus")), ("notify", "78"));
    assert!(!value("WatchdogSec").is_empty());
    // Its folders: what it writes to is not made read-only.
    assert_eq!(format!("/var/lib/{}", value("StateDirectory")), "/var/lib/sluice");
    assert!(!unit.contains("ProtectSystem") && !unit.contains("ProtectKernelTunables"), "{unit}");
}

#[test]
fn the_image_has_the_programs_where_the_daemonset_looks_for_them() {
    let recipe = text("Containerfile");
    let line = recipe.lines().find_map(|line| line.strip_prefix("COPY ")).unwrap();
    let (programs, folder) = line.rsplit_once(' ').unwrap();
    // The plugin lies beside the agent, which installs it.
    assert_eq!(programs.split(' ').collect::<Vec<_>>(), ["bin/sluice", "bin/sluice-cni"]);
    let program = format!("{folder}sluice");
    assert!(recipe.contains(&format!("ENTRYPOINT [\"{program}\"]")), "{recipe}");
    let set: DaemonSet = object("DaemonSet");
    let pod = set.spec.unwrap().template.spec.unwrap();
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        assert_eq!(container.command.as_deref(), Some(&[program.clone()][..]), "{}", container.name);
    }
    assert!(text("sluice.service").contains(&format!("ExecStart={program} ")));
}

#[test]
fn an_agent_in_a_pod_has_time_to_end_and_no_profile_that_keeps_it_from_its_pins() {
    let set: DaemonSet = object("DaemonSet");
    let pod = set.spec.unwrap().template.spec.unwrap();
    let config = Config::new(Settings { node_name: Some("one".to_owned()), ..settings() }).unwrap();
    let lameduck = config.dns_lameduck.unwrap_or(std::time::Duration::from_secs(5));
    let grace = u64::try_from(pod.termination_grace_period_seconds.unwrap()).unwrap();
    assert!(grace > lameduck.as_secs(), "{grace} s for {lameduck:?}");
    let security = pod.containers[0].security_context.clone().unwrap();
    assert_eq!(security.app_armor_profile.unwrap().type_, "Unconfined");
    assert_eq!(security.privileged, None, "capabilities are enough");
}

#[test]
fn both_ways_to_run_the_agent_give_it_the_same_capabilities() {
    let set: DaemonSet = object("DaemonSet");
    let agent = &set.spec.unwrap().template.spec.unwrap().containers[0];
    let capabilities = agent.security_context.clone().unwrap().capabilities.unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    let of_pod: BTreeSet<String> =
        capabilities.add.unwrap().into_iter().map(|name| format!("CAP_{name}")).collect();
    let unit = text("sluice.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert_eq!(line.split(' ').map(ToOwned::to_owned).collect::<BTreeSet<_>>(), of_pod);
}
