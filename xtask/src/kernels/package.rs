//! Kernels, and what their virtual machine needs besides, from Debian's packages, unpacked below `target`.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, run as run_command};
use crate::debian;
use crate::error::{Error, Result};

/// A program for the first file system: one that needs no library.
const BUSYBOX: &str = "busybox-static";
/// What has been unpacked whole.
const MARK: &str = "unpacked";

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As `uname -r` has it.
    pub(super) release: String,
    /// What a boot loader loads.
    pub(super) image: PathBuf,
    /// The folder that has `lib/modules`.
    pub(super) root: PathBuf,
}

/// The newest kernel of a version (`6.12`) that is unpacked already or that the archive has.
pub(super) fn kernel(folder: &Path, version: &str) -> Result<Kernel> {
    let prefix = format!("linux-image-{version}");
    let suffix = "-cloud-amd64";
    let is_wanted = |name: &str| {
        let middle = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(suffix));
        middle.is_some_and(|middle| middle.starts_with('.'))
    };
    let unpacked = newest(names(folder).into_iter().filter(|name| is_wanted(name)).collect());
    let package = match unpacked {
        Some(package) => package,
        None => {
            let known = |prefix: &str| {
                let text = output(Command::new("apt-cache").args(["pkgnames", prefix]))?;
                Ok(newest(text.lines().filter(|name| is_wanted(name)).map(str::to_owned).collect()))
            };
            let mut found = known(&prefix)?;
            if found.is_none() {
                debian::update()?;
                found = known(&prefix)?;
            }
            found.ok_or_else(|| Error::Missing {
                what: format!("a kernel {version}: this Debian release's archive has no {prefix}.*{suffix}"),
                way: "enable the release's security and backports archives in /etc/apt, or choose one of \
                      `apt-cache pkgnames linux-image- | grep -e -cloud-amd64`"
                    .to_owned(),
            })?
        }
    };
    let root = unpack(folder, &package)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let image = root.join(format!("boot/vmlinuz-{release}"));
    if !root.join(format!("lib/modules/{release}/modules.dep")).exists() {
        run_command(Command::new("depmod").arg("--basedir").arg(&root).arg(&release))?;
    }
    Ok(Kernel { release, image, root })
}

/// A `busybox` that needs no library.
pub(super) fn busybox(folder: &Path) -> Result<PathBuf> {
    Ok(unpack(folder, BUSYBOX)?.join("bin/busybox"))
}

/// The name with the highest numbers in it.
fn newest(mut names: Vec<String>) -> Option<String> {
    names.sort_by_key(|name| Reverse(numbers(name)));
    names.into_iter().next()
}

fn numbers(name: &str) -> Vec<u64> {
    let parts = name.split(|letter: char| !letter.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// The packages that are unpacked.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let whole = entries.filter(|entry| entry.path().join(MARK).exists());
    whole.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Downloads a package and unpacks it, unless that has been done.
fn unpack(folder: &Path, package: &str) -> Result<PathBuf> {
    let root = folder.join(package);
    if root.join(MARK).exists() {
        return Ok(root);
    }
    eprintln!("    about to fetch Debian's package {package} into {}", folder.display());
    let download = folder.join(format!("{package}.download"));
    for path in [&root, &download] {
        if path.exists() {
            fs::remove_dir_all(path).map_err(Error::file("remove", path))?;
        }
        fs::create_dir_all(path).map_err(Error::file("make", path))?;
    }
    let fetch = || {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&download).args(["-o", "APT::Sandbox::User=root", "--quiet", "download", package]);
        run_command(&mut apt)
    };
    if fetch().is_err() {
        // The list of packages may be older than the archive.
        debian::update()?;
        fetch()?;
    }
    let file = fs::read_dir(&download).map_err(Error::file("read", &download))?.flatten().next();
    let file = file.map(|entry| entry.path()).ok_or_else(|| Error::Output {
        command: format!("apt-get download {package}"),
        reason: "it left no file".to_owned(),
    })?;
    run_command(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root))?;
    fs::remove_dir_all(&download).map_err(Error::file("remove", &download))?;
    fs::write(root.join(MARK), "").map_err(Error::file("write", root.join(MARK)))?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_one_with_the_highest_numbers() {
        let names = ["6.12.99+deb12", "6.12.117+deb12", "6.12.9+deb12"];
        let names = names.map(|version| format!("linux-image-{version}-cloud-amd64"));
        assert_eq!(newest(names.to_vec()), Some("linux-image-6.12.117+deb12-cloud-amd64".to_owned()));
        assert_eq!(newest(Vec::new()), None);
    }
}
