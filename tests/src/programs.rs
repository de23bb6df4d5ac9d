//! Where the built programs are: beside the running one, as cargo puts them.

use std::path::PathBuf;

use crate::{Error, Result};

/// A binary of this workspace, built in the same profile as the running program.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    // Tests lie in `target/<profile>/deps`, binaries in `target/<profile>`.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::Missing(format!("`{name}` beside {} (cargo xtask build)", own.display())))
}
