//! Which names a rule is about, and what it puts in their place.

use regex::Regex;

use super::super::regex;
use crate::{ConfigError, NameMatch, NamePattern};

/// Some names, as text with a final dot, in lower case.
#[derive(Debug)]
pub(super) enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

/// What is put in the place of some names.
#[derive(Debug)]
pub(super) struct Substitution {
    pub(super) on: Pattern,
    pub(super) to: String,
}

impl Pattern {
    pub(super) fn new(pattern: &NamePattern) -> Result<Self, ConfigError> {
        let text = pattern.text.to_ascii_lowercase();
        Ok(match pattern.matches {
            NameMatch::Exact => Self::Exact(dotted(&text)),
            NameMatch::Prefix => Self::Prefix(text),
            NameMatch::Suffix => Self::Suffix(dotted(&text)),
            NameMatch::Substring => Self::Substring(text),
            NameMatch::Regex => Self::Regex(regex(&pattern.text)?),
        })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == text,
            Self::Prefix(text) => name.starts_with(text.as_str()),
            Self::Suffix(text) => name.ends_with(text.as_str()),
            Self::Substring(text) => name.contains(text.as_str()),
            Self::Regex(regex) => {
                regex.is_match(name) || name.strip_suffix('.').is_some_and(|name| regex.is_match(name))
            }
        }
    }

    /// The name with `to` in the place of what is looked for; `None` where it is none of these names.
    pub(super) fn put(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(text) => (name == text).then(|| to.to_owned()),
            Self::Prefix(text) => Some(format!("{to}{}", name.strip_prefix(text.as_str())?)),
            Self::Suffix(text) => Some(format!("{}{to}", name.strip_suffix(text.as_str())?)),
            Self::Substring(text) => name.contains(text.as_str()).then(|| name.replace(text.as_str(), to)),
            Self::Regex(regex) => {
                // CoreDNS's users write expressions for names with and without the final dot: both are tried.
                let found = regex.captures(name).or_else(|| regex.captures(name.strip_suffix('.')?))?;
                let mut out = to.to_owned();
                for (n, group) in found.iter().enumerate() {
                    out = out.replace(&format!("{{{n}}}"), group.map_or("", |group| group.as_str()));
                }
                Some(out)
            }
        }
    }
}

impl Substitution {
    pub(super) fn regex(from: &str, to: &str) -> Result<Self, ConfigError> {
        Ok(Self { on: Pattern::Regex(regex(from)?), to: to.to_owned() })
    }

    /// What is put in the place of a name.
    pub(super) fn put(&self, name: &str) -> Option<String> {
        self.on.put(name, &self.to)
    }
}

/// A name with a final dot.
pub(super) fn dotted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}
