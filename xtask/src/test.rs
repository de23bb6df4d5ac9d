//! `cargo xtask test`.
use crate::error::Result;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the verb.
pub(crate) fn run(_workspace: &Workspace, _args: &Args) -> Result<()> {
    Ok(())
}
