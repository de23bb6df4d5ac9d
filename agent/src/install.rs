//! `sluice install-plugin`: puts the CNI plugin where the container runtime looks for it. An image that holds nothing
//! but the two programs has no `cp`; and a plugin that is being run must not be written over.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// The plugin's file.
const PLUGIN: &str = "sluice-cni";
/// The name under which runtimes call for a container's loopback device; the plugin knows what is meant.
const LOOPBACK: &str = "loopback";

/// Why the plugin is not installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {source}")]
pub struct InstallError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError { verb, path, source }
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub struct Installed {
    /// The plugin was not there, or another one was.
    pub plugin: bool,
    /// There was no plugin for loopback devices.
    pub loopback: bool,
}

/// Installs the plugin that lies beside this program.
pub fn install_own(folder: &Path) -> Result<Installed, InstallError> {
    let own = Path::new("/proc/self/exe");
    let own = own.read_link().map_err(failed("find", own))?;
    install(&own.with_file_name(PLUGIN), folder)
}

/// Installs a plugin in a folder.
pub fn install(plugin: &Path, folder: &Path) -> Result<Installed, InstallError> {
    let wanted = fs::read(plugin).map_err(failed("read", plugin))?;
    let path = folder.join(PLUGIN);
    let differs = fs::read(&path).ok().is_none_or(|there| there != wanted);
    if differs {
        let beside = folder.join(format!(".{PLUGIN}.new"));
        fs::write(&beside, wanted).map_err(failed("write", &beside))?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&beside, executable).map_err(failed("make executable", &beside))?;
        fs::rename(&beside, &path).map_err(failed("put in place", &path))?;
    }
    let path = folder.join(LOOPBACK);
    let loopback = match symlink(PLUGIN, &path) {
        Ok(()) => true,
        // Somebody else's is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed("make", &path)(error)),
    };
    Ok(Installed { plugin: differs, loopback })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_installed_once_and_replaced_when_it_differs() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugin = from.path().join(PLUGIN);
        fs::write(&plugin, "one").unwrap();
        assert_eq!(install(&plugin, to.path()).unwrap(), Installed { plugin: true, loopback: true });
        assert_eq!(install(&plugin, to.path()).unwrap(), Installed { plugin: false, loopback: false });
        fs::write(&plugin, "two").unwrap();
        assert_eq!(install(&plugin, to.path()).unwrap(), Installed { plugin: true, loopback: false });
        let installed = to.path().join(PLUGIN);
        assert_eq!(fs::read_to_string(&installed).unwrap(), "two");
        assert_eq!(installed.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(to.path().join(LOOPBACK)).unwrap(), Path::new(PLUGIN));
        let missing = install(&from.path().join("none"), to.path()).unwrap_err().to_string();
        assert!(missing.contains("cannot read") && missing.contains("none"), "{missing}");
    }
}
