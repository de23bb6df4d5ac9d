//! What the directives mean that come before the zone and the upstreams.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use hickory_proto::rr::RecordType;

use super::{
    directives::{Block, Result, option_parsed, unknown},
    syntax::Directive,
    wrong,
};
use crate::{AclAction, AclRule, Hosts, NameMatch, Rewrite};

impl Block {
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
                ("reload", [_]) => {}
                ("fallthrough", zones) => hosts.fallthrough = Some(zones.to_vec()),
                (address, names) if address.parse::<IpAddr>().is_ok() => {
                    hosts.lines.push(format!("{address} {}", names.join(" ")));
                }
                _ => return Err(unknown(option)),
            }
        }
        if self.rules.hosts.replace(hosts).is_some() {
            return Err(wrong(directive, "the second in this server block"));
        }
        Ok(())
    }

    pub(super) fn rewrite(&mut self, directive: &Directive) -> Result<()> {
        // The long form has the name and the answer in braces; both come to the same words.
        let mut words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
        for option in &directive.options {
            words.push(&option.name);
            words.extend(option.words.iter().map(String::as_str));
        }
        let mut words = words.as_slice();
        let mut and_on = false;
        if let [mode @ ("continue" | "stop"), rest @ ..] = words {
            (and_on, words) = (*mode == "continue", rest);
        }
        let ["name", rest @ ..] = words else {
            return Err(wrong(directive, "only names can be rewritten"));
        };
        let (matches, rest) = match rest {
            ["exact", rest @ ..] => (NameMatch::Exact, rest),
            ["prefix", rest @ ..] => (NameMatch::Prefix, rest),
            ["suffix", rest @ ..] => (NameMatch::Suffix, rest),
            ["substring", rest @ ..] => (NameMatch::Substring, rest),
            ["regex", rest @ ..] => (NameMatch::Regex, rest),
            _ => (NameMatch::Exact, rest),
        };
        let [from, to, rest @ ..] = rest else {
            return Err(wrong(directive, "what is looked for and what is put in its place are expected"));
        };
        let mut rest = rest;
        let mut answers = Vec::new();
        loop {
            rest = match rest {
                [] => break,
                // Owners that bear the other name are always turned back.
                ["answer", "auto", rest @ ..] => rest,
                ["answer", "name", from, to, rest @ ..] => {
                    answers.push(((*from).to_owned(), (*to).to_owned()));
                    rest
                }
                [word, ..] => return Err(wrong(directive, format!("{word:?} is not supported"))),
            };
        }
        let (from, to) = ((*from).to_owned(), (*to).to_owned());
        self.rules.rewrites.push(Rewrite { matches, from, to, answers, and_on });
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
}
