//! The folder source: a directory of ordinary manifests in the place of an API server.
//!
//! ```text
//! manifests   ─ manifest ─┐
//! pod records ────────────┼─ merge ─▶ objects ─ endpoints ─▶ changes
//! other nodes' pod status ┘  (pure: state.rs)
//!      ▲
//!      watch.rs (inotify)
//! ```

mod located;
pub mod manifest;
