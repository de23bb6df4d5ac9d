//! The name of a namespaced object.

use std::{fmt, str::FromStr, sync::Arc};

/// A namespaced object's name, printed as `namespace/name`.
///
/// Cheap to clone: the snapshot, the plans and the logs all carry it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The object's name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Makes a name from its two parts, unchecked: the API server (or `agent/convert`) has checked them.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form namespace/name")]
pub struct InvalidName(pub String);

impl FromStr for ObjectName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(InvalidName(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_prints_as_it_parses() {
        let name: ObjectName = "shop/web".parse().unwrap();
        assert_eq!((&*name.namespace, &*name.name), ("shop", "web"));
        assert_eq!(name.to_string(), "shop/web");
        for bad in ["web", "/web", "shop/", "a/b/c"] {
            assert_eq!(bad.parse::<ObjectName>(), Err(InvalidName(bad.to_owned())));
        }
    }
}
