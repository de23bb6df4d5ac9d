//! What the agent tells the plugin about the node: `<state directory>/node.json`.
//!
//! ```json
//! { "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"], "mtu": 1450, "bpffs": "/sys/fs/bpf/sluice" }
//! ```
//!
//! Written whole, under another name, synced and renamed, so that a reader finds the old one or the new one.
//! The plugin needs it only where its configuration names no ranges.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Name of the file in the state directory.
pub const FILE: &str = "node.json";

/// The node, as far as attaching pods needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// The networks that this node's pods get their addresses from; at most one of each family is usual.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// The largest packet that pods may send; left out, that of the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The directory in which the agent pins its programs, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpffs: Option<PathBuf>,
}

/// `node.json` cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The file or its directory.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its contents.
    #[error("{path} is damaged: {source}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

impl NodeConfig {
    /// Reads it; `None` if the agent has not written one yet.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, NodeError> {
        let path = state_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(node) => Ok(Some(node)),
                Err(source) => Err(NodeError::Damaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(NodeError::Io { verb: "read", path, source }),
        }
    }

    /// Writes it, making the directory if need be. Says whether anything changed.
    pub fn write(&self, state_dir: &Path) -> Result<bool, NodeError> {
        if Self::read(state_dir).is_ok_and(|current| current.as_ref() == Some(self)) {
            return Ok(false);
        }
        let path = state_dir.join(FILE);
        self.replace(state_dir, &path).map_err(|source| NodeError::Io { verb: "write", path, source })?;
        Ok(true)
    }

    fn replace(&self, state_dir: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(state_dir)?;
        let draft = state_dir.join(format!("{FILE}.{}", std::process::id()));
        let mut file = File::create(&draft)?;
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(state_dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_was_written_and_is_written_only_when_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert_eq!(NodeConfig::read(&state).unwrap(), None);
        let mut node = NodeConfig {
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:1::/64".parse().unwrap()],
            ..NodeConfig::default()
        };
        assert!(node.write(&state).unwrap());
        assert!(!node.write(&state).unwrap());
        node.mtu = Some(1400);
        assert!(node.write(&state).unwrap());
        assert_eq!(NodeConfig::read(&state).unwrap(), Some(node));
        let names: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE], "no draft is left");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_the_agent_can_replace_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{\"podCIDRs\": [\"10.0.0.0/33\"]}").unwrap();
        let error = NodeConfig::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("node.json is damaged") && error.contains("line 1"), "{error}");
        assert!(NodeConfig::default().write(directory.path()).unwrap());
        assert_eq!(NodeConfig::read(directory.path()).unwrap(), Some(NodeConfig::default()));
    }
}
