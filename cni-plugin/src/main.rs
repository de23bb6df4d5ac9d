//! The plugin's process; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_cni::run()
}
