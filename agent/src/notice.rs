//! What the owner of an object should be told, where there is somebody to tell: in a cluster, Events.

use std::sync::Arc;

use sluice_model::ObjectName;

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// A service.
    Service(ObjectName),
    /// This node.
    Node,
}

/// Something that an object's owner should know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// The object.
    pub about: About,
    /// Why, as one word for machines: the `reason` of an Event.
    pub reason: &'static str,
    /// What was tried: the `action` of an Event.
    pub action: &'static str,
    /// For people.
    pub note: String,
}

/// Takes notices; must not block.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;
