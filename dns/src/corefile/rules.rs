//! What the directives mean that come before the zone and the upstreams.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use hickory_proto::rr::RecordType;

use super::{
    Corefile,
    directives::{Block, Result, option_duration, option_parsed, rcode, unknown},
    syntax::Directive,
    values, wrong,
};
use crate::{AclAction, AclRule, Dns64, Hosts, Template, Transfer};

impl Block<'_> {
    pub(super) fn hosts(&mut self, directive: &Directive) -> Result<()> {
        let mut hosts = Hosts { file: Some(PathBuf::from("/etc/hosts")), ..Hosts::default() };
        if let Some((file, zones)) = directive.words.split_first() {
            hosts.file = Some(PathBuf::from(file));
            hosts.zones = zones.to_vec();
        }
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("ttl", [seconds]) => hosts.ttl = option_parsed(option, seconds, "seconds")?,
                ("no_reverse", []) => hosts.reverse = false,
                ("reload", [_]) => hosts.reload = option_duration(option)?,
                ("fallthrough_unsupported", []) => hosts.fallthrough_unsupported = true,
                ("fallthrough", zones) => hosts.fallthrough = Some(zones.to_vec()),
                (address, names) if address.parse::<IpAddr>().is_ok() => {
                    hosts.lines.push(format!("{address} {}", names.join(" ")));
                }
                _ => return Err(unknown(option)),
            }
        }
        if hosts.fallthrough_unsupported && hosts.fallthrough.is_none() {
            return Err(wrong(directive, "fallthrough_unsupported without fallthrough"));
        }
        if self.rules.hosts.replace(hosts).is_some() {
            return Err(wrong(directive, "the second in this server block"));
        }
        Ok(())
    }

    pub(super) fn acl(&mut self, directive: &Directive) -> Result<()> {
        for option in &directive.options {
            let action = match option.name.as_str() {
                "allow" => AclAction::Allow,
                "block" => AclAction::Block,
                "filter" => AclAction::Filter,
                "drop" => AclAction::Drop,
                _ => return Err(unknown(option)),
            };
            let zones = directive.words.clone();
            let mut rule = AclRule { action, zones, types: Vec::new(), networks: Vec::new() };
            let mut kind = "";
            for word in &option.words {
                match (kind, word.as_str()) {
                    (_, "type" | "net") => kind = word,
                    ("type" | "net", "*") => {}
                    ("type", name) => rule.types.push(
                        RecordType::from_str(&name.to_ascii_uppercase()).map_err(|_| unknown(option))?.into(),
                    ),
                    ("net", net) => rule.networks.push(
                        net.parse()
                            .or_else(|_| net.parse::<IpAddr>().map(Into::into))
                            .map_err(|_| unknown(option))?,
                    ),
                    _ => return Err(unknown(option)),
                }
            }
            self.rules.acl.push(rule);
        }
        Ok(())
    }

    pub(super) fn transfer(&mut self, directive: &Directive, corefile: &mut Corefile) -> Result<()> {
        let keys = self.keys.iter().filter_map(|key| values::zone_and_port(key)).map(|(zone, _)| zone);
        let zones = if directive.words.is_empty() { keys.collect() } else { directive.words.clone() };
        let mut to = Vec::new();
        let mut is_open = false;
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("to", words) if !words.is_empty() => {
                    for word in words {
                        if word == "*" {
                            is_open = true;
                            continue;
                        }
                        let client =
                            values::upstream(word).filter(|upstream| upstream.over == values::Over::Plain);
                        to.push(client.ok_or_else(|| unknown(option))?.address.ip().into());
                    }
                }
                // Whence servers would be told of changes: they are not.
                ("source", [address]) if address.parse::<IpAddr>().is_ok() => {}
                _ => return Err(unknown(option)),
            }
        }
        if to.is_empty() && !is_open {
            return Err(wrong(directive, "who may have the domain is missing: to"));
        }
        if is_open {
            to.clear();
        }
        corefile.config.transfers.push(Transfer { zones, to });
        Ok(())
    }

    pub(super) fn dns64(&mut self, directive: &Directive) -> Result<()> {
        let mut dns64 = Dns64::default();
        let prefix = |words: &[String]| match words {
            [word] => word.parse().map_err(|_| wrong(directive, format!("{word:?} is not an IPv6 network"))),
            _ => Err(wrong(directive, "one IPv6 network is expected")),
        };
        if !directive.words.is_empty() {
            dns64.prefix = prefix(&directive.words)?;
        }
        for option in &directive.options {
            match option.name.as_str() {
                "prefix" => dns64.prefix = prefix(&option.words)?,
                "translate_all" => dns64.translate_all = true,
                "allow_ipv4" => dns64.allow_ipv4 = true,
                _ => return Err(unknown(option)),
            }
        }
        self.rules.dns64 = Some(dns64);
        Ok(())
    }

    pub(super) fn template(&mut self, directive: &Directive) -> Result<()> {
        let [class, qtype, zones @ ..] = directive.words.as_slice() else {
            return Err(wrong(directive, "a class and a type are expected"));
        };
        if !["IN", "ANY"].contains(&class.to_ascii_uppercase().as_str()) {
            return Err(wrong(directive, format!("the class {class:?} is not served")));
        }
        let qtype = RecordType::from_str(&qtype.to_ascii_uppercase())
            .map_err(|_| wrong(directive, format!("{qtype:?} is not a record type")))?;
        let mut template =
            Template { qtype: Some(qtype.into()), zones: zones.to_vec(), ..Template::default() };
        for option in &directive.options {
            let words = || option.words.iter().cloned();
            match (option.name.as_str(), option.words.as_slice()) {
                ("match", [_, ..]) => template.matches.extend(words()),
                ("answer", [_, ..]) => template.answer.extend(words()),
                ("authority", [_, ..]) => template.authority.extend(words()),
                ("additional", [_, ..]) => template.additional.extend(words()),
                ("rcode", [code]) => template.rcode = rcode(code).ok_or_else(|| unknown(option))?,
                ("ederror", [code, text @ ..]) if text.len() <= 1 => {
                    let code = option_parsed(option, code, "the number of an extended error")?;
                    template.error = Some((code, text.concat()));
                }
                ("fallthrough", _) => template.fallthrough = Some(option.words.clone()),
                // Once it said who looks for the target of an alias.
                ("upstream", _) => {}
                _ => return Err(unknown(option)),
            }
        }
        self.rules.templates.push(template);
        Ok(())
    }
}
