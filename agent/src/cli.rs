//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Settings};

/// Kubernetes node networking in one program: services, DNS and routes between nodes.
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node's agent
    ///
    /// Every setting may stand in the configuration file or be given as a flag; a flag wins.
    Agent(Options),
    /// Remove what the agent has made: programs, maps, routes, devices
    ///
    /// The agent must not run. Pods that are attached keep their devices and addresses, and lose their way to
    /// services; the bridge goes once no pod is attached to it.
    Cleanup(Options),
    /// Say how this node is
    ///
    /// Given the agent's configuration: whether the agent is well and what troubles it, and what is there without it:
    /// pods, programs, services. Ends with status 1 if the agent is not well.
    Status {
        /// Tell what each address of a service leads to
        #[arg(long)]
        services: bool,
        /// The agent's configuration.
        #[command(flatten)]
        options: Options,
    },
    /// Print what is set, and end
    ///
    /// What flags, file and KubeProxyConfiguration make together, in the form of the file; defaults are left out. What
    /// of a KubeProxyConfiguration does not hold here goes to the standard error.
    ShowConfig(Options),
    /// Serve services in the place of kube-proxy, with kube-proxy's flags
    ///
    /// Pods are attached by another plugin, and DNS is somebody else's. `sluice kube-proxy --help` names the flags.
    #[command(disable_help_flag = true)]
    KubeProxy {
        /// kube-proxy's flags
        #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Put the CNI plugin that lies beside this program into a folder
    ///
    /// Whole at once, and only if another one is there; as `loopback`, too, if nobody else's is.
    InstallPlugin {
        /// The container runtime's folder of plugins
        folder: PathBuf,
    },
}

/// A configuration file, and flags that go before it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The configuration file, in YAML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Settings that go before those of the file.
    #[command(flatten)]
    pub settings: Settings,
}

impl Options {
    /// The configuration that file and flags make together.
    pub fn load(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        Config::load(self.settings.or(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_described() {
        let text = include_str!("../../docs/agent.md");
        let command = Cli::command();
        let agent = command.find_subcommand("agent").unwrap();
        for flag in agent.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(text.contains(&format!("--{flag}")), "docs/agent.md says nothing of --{flag}");
        }
    }

    #[test]
    fn flags_are_understood() {
        let line = "sluice agent --manifests /m --service-cidrs 10.96.0.0/12,fd00::/108 --uplinks eth0,eth1 \
                    --fast-path=false --publish-pod-status --cluster-dns 10.96.0.10 --node-name one --log-format json";
        let Command::Agent(options) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("another command")
        };
        let config = options.load().unwrap();
        assert_eq!(config.service_cidrs.len(), 2);
        assert_eq!(config.uplinks.as_deref(), Some(&["eth0".to_owned(), "eth1".to_owned()][..]));
        assert!(!config.fast_path && config.publish_pod_status && config.proxy);
    }
}
