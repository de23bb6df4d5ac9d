//! The folder source: a directory of ordinary manifests in the place of an API server.
//!
//! ```text
//! manifests ── manifest.rs ─ files.rs ─┐
//! pod records (the plugin's) ──────────┼─ view.rs ─▶ deltas ─▶ the loop
//! other nodes' pods ── status.rs ──────┘     ▲ └ endpoints/
//!      ▲                                     pure
//!   watch.rs (inotify) ─ source.rs
//! ```

mod files;
mod located;
pub mod manifest;
mod source;
mod status;
mod view;
mod watch;

pub use files::Note;
pub use source::{FolderError, FolderSource, Input};
pub use status::PodStatus;
pub(crate) use status::write_atomically;
pub use view::{PodAddresses, View};
pub use watch::Notice;

#[cfg(test)]
mod tests;
