//! Which objects of a kind are watched.

use kube::core::params::{ListParams, WatchParams};

/// Which objects of a kind are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// None: nobody asks for any.
    None,
    /// Those that a selector selects.
    Of(Selector),
}

/// A selector; nothing selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    /// By labels.
    pub(super) labels: Option<String>,
    /// By fields.
    pub(super) fields: Option<String>,
    /// What only some need is kept ([`super::Kind::convert`]): selects nothing, but another list is needed for it, too.
    pub(super) whole: bool,
}

impl Selector {
    /// What to ask a list for, in pages of so many.
    pub(super) fn list(&self, limit: Option<u32>) -> ListParams {
        let Self { labels, fields, .. } = self.clone();
        ListParams { limit, label_selector: labels, field_selector: fields, ..ListParams::default() }
    }

    /// What to ask a watch for.
    pub(super) fn watch(&self) -> WatchParams {
        let Self { labels, fields, .. } = self.clone();
        WatchParams { label_selector: labels, field_selector: fields, ..WatchParams::default() }
    }
}
