//! What has names: the options `namespaces`, `namespace_labels` and `labels` of CoreDNS's kubernetes plugin.

use std::{collections::BTreeMap, str::FromStr};

use sluice_model::Snapshot;

/// Which namespaces and services have names; all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Only these namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// Only namespaces with such labels.
    pub namespace_labels: Option<Selector>,
    /// Only services with such labels. Whoever publishes must know the services' labels then.
    pub labels: Option<Selector>,
}

impl Exposure {
    /// Whether a namespace has names.
    pub(crate) fn has_namespace(&self, name: &str, snapshot: &Snapshot) -> bool {
        let is_listed = self.namespaces.is_empty() || self.namespaces.iter().any(|listed| listed == name);
        is_listed
            && self.namespace_labels.as_ref().is_none_or(|selector| {
                snapshot.namespaces.get(name).is_some_and(|namespace| selector.matches(&namespace.labels))
            })
    }

    /// Whether a service with these labels, of a namespace that has names, has a name.
    pub(crate) fn has_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.labels.as_ref().is_none_or(|selector| match labels {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&BTreeMap::new()),
        })
    }
}

/// A label selector as Kubernetes writes it: `a=b,c!=d,e in (x, y),f notin (z),g,!h`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wants {
    Present,
    Absent,
    /// One of these values.
    In(Vec<String>),
    /// None of these values; the label may be missing.
    NotIn(Vec<String>),
}

/// A text that is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a label selector")]
pub struct InvalidSelector(pub String);

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|Requirement { key, wants }| {
            let value = labels.get(key);
            match wants {
                Wants::Present => value.is_some(),
                Wants::Absent => value.is_none(),
                Wants::In(values) => value.is_some_and(|value| values.contains(value)),
                Wants::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let invalid = || InvalidSelector(text.to_owned());
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            // A comma within parentheses does not end a requirement.
            let open = rest.find('(').unwrap_or(rest.len());
            let end = match rest.find(',') {
                Some(comma) if comma < open => comma,
                _ => rest[open..].find(')').map_or(rest.len(), |close| open + close + 1),
            };
            requirements.push(requirement(&rest[..end]).ok_or_else(invalid)?);
            rest = rest[end..].trim_start();
            rest = match rest.strip_prefix(',') {
                Some(more) if !more.trim().is_empty() => more.trim_start(),
                None if rest.is_empty() => rest,
                _ => return Err(invalid()),
            };
        }
        if requirements.is_empty() { Err(invalid()) } else { Ok(Self(requirements)) }
    }
}

fn requirement(text: &str) -> Option<Requirement> {
    let text = text.trim();
    let made = |key: &str, wants| {
        let key = key.trim();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        (!key.is_empty() && key.bytes().all(is_plain)).then(|| Requirement { key: key.to_owned(), wants })
    };
    if let Some((head, list)) = text.split_once('(') {
        let values = list.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => made(key, Wants::In(values)),
            "notin" => made(key, Wants::NotIn(values)),
            _ => None,
        };
    }
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, Wants::NotIn(one(value)));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return made(key, Wants::In(one(value)));
    }
    match text.strip_prefix('!') {
        Some(key) => made(key, Wants::Absent),
        None => made(text, Wants::Present),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_selected() {
        let labels: BTreeMap<String, String> =
            [("app", "web"), ("tier", "front")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, wanted) in [
            ("app=web", true),
            ("app==web, tier = front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app in (db),tier", false),
            ("app notin (db,mail),tier", true),
            ("other notin (db)", true),
            ("tier", true),
            ("!tier", false),
            ("!other,app in (web)", true),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().matches(&labels), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["", ",", "a,", "a b", "a in b", "a in (b", "=b", "a of (b)", "a in (b) c", "!"] {
            assert_eq!(text.parse::<Selector>(), Err(InvalidSelector(text.to_owned())), "{text}");
        }
    }
}
