//! A node: a namespace with an uplink, a cgroup, a bpffs and a state folder of its own, and the agent in it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{DNS_ADDRESSES, OUTSIDE, Options, Pod, SERVICE_CIDRS, with_length};
use crate::bed::{Host, Switch};
use crate::{Error, Result, Running, Testbed, programs, wait_for};

/// How long an agent may take until it is ready.
const READY: Duration = Duration::from_secs(10);

/// The router's addresses on the network of a node that is apart.
pub(super) fn gateways_apart(index: u8) -> [String; 2] {
    [format!("192.168.10{index}.100"), format!("fd77:{index}::100")]
}

/// A node; its agent is killed and its namespace removed when dropped.
#[derive(Debug)]
pub struct Node {
    agent: RefCell<Option<Running>>,
    host: Host,
    index: u8,
    apart: bool,
    /// The lines of the configuration that say where the agent learns of the cluster.
    source: String,
    bpffs: PathBuf,
    state: PathBuf,
    config: PathBuf,
    containers: Cell<u32>,
}

impl Node {
    pub(super) fn make(
        bed: &Testbed,
        lan: &Switch,
        index: u8,
        source: &str,
        options: &Options,
    ) -> Result<Self> {
        let host = bed.host(&format!("node{index}"))?;
        let name = host.name();
        let state = bed.subfolder(format!("{name}-state"))?;
        let bpffs = bed.mount_bpffs(format!("{name}-bpf"))?;
        let config = bed.folder().join(format!("{name}.yaml"));
        let apart = options.apart.contains(&index);
        let (agent, containers) = (RefCell::default(), Cell::new(0));
        let source = source.to_owned();
        let node = Self { agent, index, apart, source, bpffs, state, config, host, containers };
        let addresses = node.addresses().map(|address| with_length(&address));
        lan.connect(&node.host, "eth0", &addresses.each_ref().map(String::as_str))?;
        let [gateway4, gateway6] = if apart { gateways_apart(index) } else { OUTSIDE.map(str::to_owned) };
        node.host.ip(&format!("route add default via {gateway4}\nroute add default via {gateway6}\n"))?;
        node.host.etc("resolv.conf", &format!("nameserver {}\n", OUTSIDE[0]))?;
        node.configure(options)?;
        Ok(node)
    }

    /// Writes its agent's configuration, which a new agent reads.
    pub fn configure(&self, options: &Options) -> Result<()> {
        let source = &self.source;
        let [services4, services6] = SERVICE_CIDRS;
        let [dns4, dns6] = DNS_ADDRESSES;
        let text = format!(
            "nodeName: {}\n{source}\nstateDir: {}\nbpffsDir: {}\ncgroupRoot: {}\n\
             {}serviceCIDRs: [{services4}, '{services6}']\nclusterDNS: [{dns4}, '{dns6}']\n\
             fastPath: {}\ncniConfDir: {}\nhealthzAddress: 127.0.0.1:10256\n{}{}",
            self.name(),
            self.state.display(),
            self.bpffs.join("sluice").display(),
            self.host.cgroup().display(),
            if options.agent.contains("flowEntries") { "" } else { "flowEntries: 65536\n" },
            options.fast_path,
            self.cni_conf_dir().display(),
            if options.agent.contains("logLevel") { "" } else { "logLevel: debug\n" },
            options.agent,
        );
        std::fs::write(&self.config, text).map_err(Error::file("write", &self.config))
    }

    /// Puts something else in the place of lines of its agent's configuration.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) -> Result<()> {
        let text = std::fs::read_to_string(&self.config).map_err(Error::file("read", &self.config))?;
        std::fs::write(&self.config, change(text)).map_err(Error::file("write", &self.config))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its namespace.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its addresses on the switch, IPv4 and IPv6.
    pub fn addresses(&self) -> [String; 2] {
        if self.apart {
            return [format!("192.168.10{}.1", self.index), format!("fd77:{}::1", self.index)];
        }
        [format!("192.168.77.{}", self.index), format!("fd77::{}", self.index)]
    }

    /// The networks of its pods, IPv4 and IPv6.
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.index), format!("fd00:244:{}::/64", self.index)]
    }

    /// Its BPF file system's folder for pins.
    pub fn bpffs(&self) -> PathBuf {
        self.bpffs.join("sluice")
    }

    /// The folder that agent and plugin share.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder of its container runtime's network configurations.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.state.join("net.d")
    }

    /// A new id for a container of this node.
    pub(super) fn container_id(&self) -> String {
        let count = self.containers.get() + 1;
        self.containers.set(count);
        format!("{}-{count:04}", self.name())
    }

    /// A new pod on this node, wired by the plugin.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        Pod::add(self, name, Value::Null, Value::Null)
    }

    /// A new pod for which the runtime asks for something: the object `runtimeConfig`.
    pub fn pod_that_wants(&self, name: &str, wishes: Value) -> Result<Pod> {
        Pod::add(self, name, wishes, Value::Null)
    }

    /// A new pod of a network with these options besides the usual ones.
    pub fn pod_with(&self, name: &str, options: Value) -> Result<Pod> {
        Pod::add(self, name, Value::Null, options)
    }

    /// Starts the agent.
    pub fn start_agent(&self) -> Result<()> {
        self.start_agent_by(&[])
    }

    /// Starts the agent by way of another program, such as `setpriv`, given with its arguments.
    pub fn start_agent_by(&self, way: &[&str]) -> Result<()> {
        let program = programs::built("sluice")?.to_string_lossy().into_owned();
        let config = self.config.display().to_string();
        let words = [way, &[&program, "agent", "--config", &config]].concat();
        let agent = self.host.start("agent", words[0], &words[1..])?;
        *self.agent.borrow_mut() = Some(agent);
        Ok(())
    }

    /// Starts what stands in kube-proxy's place, with these flags of its besides; the node's own configuration goes before.
    pub fn start_kube_proxy(&self, flags: &[&str]) -> Result<()> {
        let program = programs::built("sluice")?.to_string_lossy().into_owned();
        let config = self.config.display().to_string();
        let words = [&["kube-proxy", "--sluice-config", &config], flags].concat();
        *self.agent.borrow_mut() = Some(self.host.start("agent", &program, &words)?);
        Ok(())
    }

    /// Runs it to its end, for flags such as `--cleanup`.
    pub fn kube_proxy(&self, flags: &[&str]) -> Result<String> {
        let program = programs::built("sluice")?;
        let config = self.config.display().to_string();
        let words = [&["kube-proxy", "--sluice-config", &config], flags].concat();
        self.host.succeed(&program.to_string_lossy(), &words)
    }

    /// The process id of the agent.
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.borrow().as_ref().map(Running::pid)
    }

    /// Waits until the agent says that it is ready.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_ready_within(READY)
    }

    /// Waits so long until the agent says that it is ready.
    pub fn wait_ready_within(&self, limit: Duration) -> Result<()> {
        let waited = wait_for(&format!("the agent on {}", self.name()), limit, || {
            if !self.agent.borrow_mut().as_mut().is_some_and(Running::is_running) {
                return Ok(Some(false));
            }
            let probe =
                ["-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz"];
            let code = self.host.run("curl", &probe)?.stdout;
            if code == "200" { Ok(Some(true)) } else { Err(Error::answer("/healthz", code)) }
        });
        match waited {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::answer(format!("the agent on {}", self.name()), self.agent_log())),
            Err(error) => Err(Error::answer(error.to_string(), self.agent_log())),
        }
    }

    /// Tells the agent to end and starts another, which takes over; returns when the first has ended.
    pub fn replace_agent(&self) -> Result<()> {
        let before = self.agent.borrow_mut().take();
        if let Some(before) = &before {
            before.signal(Signal::SIGTERM)?;
        }
        self.start_agent()?;
        before.map_or(Ok(None), |mut before| before.wait(READY))?;
        self.wait_ready()
    }

    /// Tells the agent to end.
    pub fn terminate_agent(&self) -> Result<()> {
        self.agent.borrow().as_ref().map_or(Ok(()), |agent| agent.signal(Signal::SIGTERM))
    }

    /// Tells the agent to end, and returns when it has.
    pub fn stop_agent(&self) -> Result<Option<i32>> {
        let Some(mut agent) = self.agent.borrow_mut().take() else { return Ok(None) };
        agent.signal(Signal::SIGTERM)?;
        agent.wait(READY)
    }

    /// Kills the agent with SIGKILL.
    pub fn kill_agent(&self) -> Result<()> {
        self.agent.borrow_mut().take().map_or(Ok(()), |mut agent| agent.kill())
    }

    /// Removes what the agent has made, as `sluice cleanup` does.
    pub fn cleanup(&self) -> Result<String> {
        let program = programs::built("sluice")?;
        let config = self.config.display().to_string();
        self.host.succeed(&program.to_string_lossy(), &["cleanup", "--config", &config])
    }

    /// What the agents of this node have logged.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.host.log_path("agent")).unwrap_or_default()
    }
}
