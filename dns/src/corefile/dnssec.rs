//! The directive `dnssec`.

use std::path::PathBuf;

use super::{
    bad_option,
    directives::{Block, Result, option_parsed, unknown},
    syntax::Directive,
    wrong,
};
use crate::Dnssec;

impl Block<'_> {
    pub(super) fn dnssec(&mut self, directive: &Directive) -> Result<()> {
        let mut dnssec = Dnssec { zones: self.zones(directive)?, ..Dnssec::default() };
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("key", [kind, files @ ..]) if kind == "file" && !files.is_empty() => {
                    dnssec.keys.extend(files.iter().map(PathBuf::from));
                }
                ("key", [kind, ..]) if kind == "aws_secretsmanager" => {
                    return Err(bad_option(option, "keys are read from files alone"));
                }
                ("cache_capacity", [number]) => {
                    dnssec.cache_capacity = option_parsed(option, number, "a number")?;
                }
                _ => return Err(unknown(option)),
            }
        }
        if dnssec.keys.is_empty() {
            return Err(wrong(directive, "the keys are missing: key file"));
        }
        if self.rules.dnssec.replace(dnssec).is_some() {
            return Err(wrong(directive, "the second in this server block"));
        }
        Ok(())
    }
}
