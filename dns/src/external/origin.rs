//! What of the configuration decides about names for those outside.

use crate::{
    ConfigError, External,
    name::{self, WireName, push_label},
    query::QueryName,
};

/// The domains, and how they are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalOrigin {
    /// The longest first.
    zones: Box<[WireName]>,
    /// Where reverse names lead.
    pub(crate) first: WireName,
    /// The label of `ns1.<apex>`, its length before it.
    pub(crate) apex: Box<[u8]>,
    /// Time to live.
    pub(crate) ttl: u32,
    /// Headless services have their endpoints.
    pub(crate) headless: bool,
    fallthrough: Box<[WireName]>,
    except: Box<[WireName]>,
}

impl ExternalOrigin {
    /// What a configuration says, if it can be served.
    pub(crate) fn new(config: &External) -> Result<Self, ConfigError> {
        let names = |texts: &[String]| {
            let name = |text: &String| WireName::parse(text).ok_or_else(|| ConfigError::Zone(text.clone()));
            texts.iter().map(name).collect::<Result<Vec<_>, _>>()
        };
        let mut zones = names(&config.zones)?;
        let first = zones.iter().find(|zone| !is_reverse(zone)).or(zones.first()).cloned();
        let Some(first) = first else { return Err(ConfigError::NoZone("k8s_external")) };
        let mut apex = Vec::new();
        if config.apex.contains('.') || !push_label(&mut apex, config.apex.as_bytes()) {
            return Err(ConfigError::Label(config.apex.clone()));
        }
        if config.ttl > 3600 {
            return Err(ConfigError::Ttl(config.ttl));
        }
        let fallthrough = match &config.fallthrough {
            None => Vec::new(),
            Some(zones) if zones.is_empty() => names(&[".".to_owned()])?,
            Some(zones) => names(zones)?,
        };
        zones.sort_unstable_by_key(|zone| std::cmp::Reverse(zone.as_bytes().len()));
        Ok(Self {
            zones: zones.into(),
            first,
            apex: apex.into(),
            ttl: config.ttl,
            headless: config.headless,
            fallthrough: fallthrough.into(),
            except: names(&config.except)?.into(),
        })
    }

    /// How many labels stand before the domain that a name is below, and that domain.
    pub(crate) fn above(&self, name: &QueryName) -> Option<(usize, &WireName)> {
        let found = self.zones.iter().find_map(|zone| Some((name.labels_before(zone.as_bytes())?, zone)))?;
        let is_left = self.except.iter().any(|zone| name.labels_before(zone.as_bytes()).is_some());
        (!is_left).then_some(found)
    }

    /// Whether others are asked for a name that does not exist.
    pub(crate) fn falls_through(&self, name: &QueryName) -> bool {
        self.fallthrough.iter().any(|zone| name.labels_before(zone.as_bytes()).is_some())
    }
}

/// Whether a domain is one of reverse names.
pub(crate) fn is_reverse(zone: &WireName) -> bool {
    let Some((name, _)) = QueryName::read(zone.as_bytes(), 0) else { return false };
    name::reverse_prefix(name.rev_labels()).is_some()
}
