//! What a node says of its pods to the other nodes that share the folder: an ordinary `List` of Pods with
//! `status.podIPs`, one file for each node, written by its agent only.
//!
//! ```text
//! <manifests>/.sluice/<node>.yaml
//! ```

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use serde_json::json;
use sluice_model::Object;

use super::{
    manifest::{Complaint, Manifest},
    view::PodAddresses,
};

/// The folder, below that of the manifests, which holds the nodes' files.
pub(super) const FOLDER: &str = ".sluice";

/// What one node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStatus {
    /// The node.
    pub node: Arc<str>,
    /// Its pods.
    pub pods: PodAddresses,
}

impl PodStatus {
    /// The text of the node's file.
    pub fn render(&self) -> Result<String, serde_saphyr::ser_error::Error> {
        let items: Vec<_> = self
            .pods
            .iter()
            .map(|(name, addresses)| {
                let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
                json!({
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"namespace": &*name.namespace, "name": &*name.name},
                    "spec": {"nodeName": &*self.node, "containers": []},
                    "status": {"podIPs": ips},
                })
            })
            .collect();
        serde_saphyr::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": items}))
    }

    /// Reads the file of the node `node`.
    pub fn parse(node: Arc<str>, text: &str) -> Result<Self, Complaint> {
        let Manifest { entries, complaints, .. } = Manifest::parse(text);
        if let Some(first) = complaints.into_iter().next() {
            return Err(first);
        }
        let pods = entries.into_iter().filter_map(|entry| match entry.object {
            Object::Pod(pod) => Some((pod.name, pod.addresses)),
            _ => None,
        });
        Ok(Self { node, pods: pods.collect() })
    }
}

/// Writes a file so that a reader finds the old text or the new, and nothing between.
pub(crate) fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(folder)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    // Of this process alone: an agent that ends and its successor may write at the same time, and in containers both are
    // process 1.
    hidden.push(format!(".{:08x}.new", rand::random::<u32>()));
    let temporary = folder.join(hidden);
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_model::ObjectName;

    #[test]
    fn what_one_node_writes_another_reads() {
        let addresses = ["10.0.1.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let pods =
            [(ObjectName::new("default", "a"), addresses.to_vec()), (ObjectName::new("shop", "b"), vec![])];
        let status = PodStatus { node: "one".into(), pods: pods.into() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FOLDER).join("one.yaml");
        write_atomically(&path, &status.render().unwrap()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(PodStatus::parse("one".into(), &text).unwrap(), status);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        // A node without pods says so.
        let empty = PodStatus { node: "one".into(), pods: PodAddresses::new() };
        assert_eq!(PodStatus::parse("one".into(), &empty.render().unwrap()).unwrap(), empty);
    }
}
