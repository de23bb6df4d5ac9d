//! The directive `k8s_external`.

use super::{
    CorefileError, bad_option,
    directives::{Block, Result, option_parsed, unknown},
    syntax::Directive,
    values, wrong,
};
use crate::{External, name::WireName};

impl Block<'_> {
    pub(super) fn k8s_external(&mut self, directive: &Directive) -> Result<()> {
        let mut external = External { zones: self.zones(directive)?, ..External::default() };
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("apex", [label]) => external.apex.clone_from(label),
                ("ttl", [seconds]) => {
                    external.ttl = option_parsed(option, seconds, "seconds")?;
                    if external.ttl > 3600 {
                        return Err(bad_option(option, "is not between 0 and 3600 seconds"));
                    }
                }
                ("headless", []) => external.headless = true,
                ("fallthrough", zones) => external.fallthrough = Some(zones.to_vec()),
                _ => return Err(unknown(option)),
            }
        }
        if self.external.replace((directive.at.clone(), external)).is_some() {
            return Err(wrong(directive, "the second in this server block"));
        }
        Ok(())
    }

    /// The domains that a directive names, or those of the block where it names none.
    pub(super) fn zones(&self, directive: &Directive) -> Result<Vec<String>> {
        self.zones_of(directive, &directive.words)
    }

    /// As above, of some of a directive's words.
    pub(super) fn zones_of(&self, directive: &Directive, words: &[String]) -> Result<Vec<String>> {
        if words.is_empty() {
            return Ok(self
                .keys
                .iter()
                .filter_map(|key| values::zone_and_port(key))
                .map(|(zone, _)| zone)
                .collect());
        }
        let zone = |word: &String| {
            let zone = values::zone_of(word).filter(|zone| WireName::parse(zone).is_some());
            zone.ok_or_else(|| wrong(directive, format!("{word:?} is not a domain")))
        };
        words.iter().map(zone).collect()
    }

    /// What is left to other server blocks of what this one's `k8s_external` says; it needs the block's `kubernetes`.
    pub(super) fn external(&mut self, others: &[&str]) -> Result<Option<External>> {
        let Some((at, mut external)) = self.external.take() else { return Ok(None) };
        if !self.has_kubernetes {
            let problem = "the server block has no kubernetes, whose services these are";
            return Err(CorefileError::at(&at, "k8s_external", problem));
        }
        let parse = |text: &str| WireName::parse(text);
        let zones: Vec<_> = external.zones.iter().filter_map(|zone| parse(zone)).collect();
        external.except = others
            .iter()
            .filter_map(|key| values::zone_and_port(key))
            .filter(|(zone, _)| {
                let Some(name) = parse(zone) else { return false };
                zones.iter().any(|zone| name.is_below(zone))
            })
            .map(|(zone, _)| zone)
            .collect();
        Ok(Some(external))
    }
}
