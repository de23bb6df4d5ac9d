//! The container runtime's network configuration: it tells the runtime to call the plugin.
//!
//! Runtimes take a node for ready once there is one. So it is written only when pods can be attached: the datapath is
//! pinned, and the plugin knows the node's pod networks. It is never taken back while the node lives: the plugin
//! works without the agent, and a node without a configuration would refuse pods for the length of a restart.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sluice_netlink::owned::DEFAULT_BRIDGE;

use crate::config::Config;

/// The file's name. Runtimes read the first by name.
pub const FILE: &str = "10-sluice.conflist";
/// The field that says who wrote the file, and its value. Runtimes pass over fields that they do not know.
const MARK: (&str, &str) = ("writtenBy", "sluice agent");
/// What the plugin can do for a pod; the runtime hands over what a pod asks of these.
const CAPABILITIES: [&str; 7] = ["portMappings", "bandwidth", "ips", "mac", "ipRanges", "dns", "aliases"];
/// How files end that runtimes read.
const READ: [&str; 3] = ["conf", "conflist", "json"];

/// A configuration that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// A file operation.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours name that is not ours.
    #[error("{path} was written by somebody else: it stays as it is")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl ConflistError {
    fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}

/// The configuration's text.
pub fn text(config: &Config) -> String {
    let mut plugin = json!({ "type": "sluice-cni" });
    // What is said here, every call of the plugin carries; so only what differs from its own defaults.
    if config.state_dir != Path::new("/var/lib/sluice") {
        plugin["stateDir"] = json!(config.state_dir);
    }
    if config.bridge != DEFAULT_BRIDGE {
        plugin["bridge"] = json!(config.bridge);
    }
    if config.proxy {
        // After a reboot this file is there before the agent is.
        plugin["requireDatapath"] = json!(true);
    }
    plugin["capabilities"] = CAPABILITIES.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
    let (field, agent) = MARK;
    let list = json!({
        field: agent,
        // What runtimes take that do not know the field after it.
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "sluice",
        "plugins": [plugin],
    });
    format!("{list:#}\n")
}

/// Writes the configuration unless it is there. Says whether it was written.
pub fn ensure(folder: &Path, text: &str) -> Result<bool, ConflistError> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(held) if held == text => return Ok(false),
        Ok(held) if !is_ours(&held) => return Err(ConflistError::Foreign { path }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(ConflistError::io("read", &path)(source)),
    }
    fs::create_dir_all(folder).map_err(ConflistError::io("make", folder))?;
    // Its name ends as no file's that a runtime reads.
    let draft = folder.join(format!("{FILE}.{}", std::process::id()));
    write(&draft, text).map_err(ConflistError::io("write", &draft))?;
    fs::rename(&draft, &path).map_err(ConflistError::io("rename", &draft))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ConflistError::io("sync", folder))?;
    Ok(true)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Removes the configuration if it is ours. Says whether it was there.
pub fn remove(folder: &Path) -> Result<bool, ConflistError> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(held) if is_ours(&held) => {
            fs::remove_file(&path).map_err(ConflistError::io("remove", &path))?;
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ConflistError::io("read", &path)(source)),
    }
}

fn is_ours(text: &str) -> bool {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    parsed.is_some_and(|list| list[MARK.0] == MARK.1)
}

/// A configuration of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The file.
    pub path: PathBuf,
    /// Runtimes that read one configuration only read this one.
    pub wins: bool,
}

/// The configurations of others in the folder, by name.
pub fn others(folder: &Path) -> Result<Vec<Other>, ConflistError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConflistError::io("list", folder)(source)),
    };
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ConflistError::io("list", folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_read = path.extension().is_some_and(|extension| READ.iter().any(|read| extension == *read));
        if is_read && name != FILE {
            others.push(Other { wins: name.as_encoded_bytes() < FILE.as_bytes(), path });
        }
    }
    others.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config(change: impl FnOnce(&mut Settings)) -> Config {
        let mut settings =
            Settings { node_name: Some("one".into()), manifests: Some("/m".into()), ..Settings::default() };
        change(&mut settings);
        Config::new(settings).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn it_says_what_differs_from_the_plugins_defaults() {
        let list: Value = serde_json::from_str(&text(&config(|_| {}))).unwrap();
        let plugin = &list["plugins"][0];
        assert_eq!((list["name"].as_str(), plugin["type"].as_str()), (Some("sluice"), Some("sluice-cni")));
        assert_eq!(plugin["capabilities"]["portMappings"], true);
        assert_eq!(plugin["requireDatapath"], true);
        assert!(plugin.get("stateDir").is_none() && plugin.get("bridge").is_none());

        let other = config(|settings| {
            settings.state_dir = Some("/run/one".into());
            settings.bridge = Some("pods0".into());
            settings.proxy = Some(false);
        });
        let list: Value = serde_json::from_str(&text(&other)).unwrap();
        let plugin = &list["plugins"][0];
        assert_eq!(
            (plugin["stateDir"].as_str(), plugin["bridge"].as_str()),
            (Some("/run/one"), Some("pods0"))
        );
        assert!(plugin.get("requireDatapath").is_none());
    }

    #[test]
    fn it_is_written_whole_updated_if_ours_and_removed_if_ours() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("net.d");
        let (first, second) = (text(&config(|_| {})), text(&config(|settings| settings.proxy = Some(false))));
        assert!(!remove(&folder).unwrap());
        assert!(ensure(&folder, &first).unwrap());
        assert!(!ensure(&folder, &first).unwrap());
        assert!(ensure(&folder, &second).unwrap());
        assert_eq!(fs::read_to_string(folder.join(FILE)).unwrap(), second);
        assert_eq!(names(&folder), [FILE], "no draft is left");
        assert!(remove(&folder).unwrap());
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn somebody_elses_stays_and_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        let foreign = "{\"name\": \"mine\", \"plugins\": []}";
        for name in [FILE, "05-calico.conflist", "87-podman.conflist", "notes.txt", "20-old.conf"] {
            fs::write(folder.join(name), foreign).unwrap();
        }
        let error = ensure(folder, &text(&config(|_| {}))).unwrap_err();
        assert!(matches!(error, ConflistError::Foreign { .. }), "{error}");
        assert!(!remove(folder).unwrap());
        assert_eq!(fs::read_to_string(folder.join(FILE)).unwrap(), foreign);
        let found: Vec<_> = others(folder)
            .unwrap()
            .into_iter()
            .map(|other| (other.path.file_name().unwrap().to_string_lossy().into_owned(), other.wins))
            .collect();
        let expected = [("05-calico.conflist", true), ("20-old.conf", false), ("87-podman.conflist", false)];
        assert_eq!(found, expected.map(|(name, wins)| (name.to_owned(), wins)));
        assert_eq!(others(&folder.join("none")).unwrap(), []);
    }
}
