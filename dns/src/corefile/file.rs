//! The directives `file` and `root`.

use std::path::PathBuf;

use super::{
    directives::{Block, Result, option_duration, unknown},
    syntax::Directive,
    wrong,
};
use crate::{OrderPolicy, ZoneFile};

impl Block<'_> {
    pub(super) fn file(&mut self, directive: &Directive) -> Result<()> {
        let Some((file, zones)) = directive.words.split_first() else {
            return Err(wrong(directive, "a file is expected"));
        };
        let zones = self.zones_of(directive, zones)?;
        let mut zone = ZoneFile { file: PathBuf::from(file), zones, ..ZoneFile::default() };
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("reload", [_]) => {
                    zone.reload = Some(option_duration(option)?).filter(|time| !time.is_zero());
                }
                // A file is read when it has changed, whatever its serial number is; targets of aliases are looked up anyway.
                ("reload_by_mtime", []) | ("upstream", _) => {}
                ("fallthrough", zones) => zone.fallthrough = Some(zones.to_vec()),
                _ => return Err(unknown(option)),
            }
        }
        self.rules.files.push(zone);
        Ok(())
    }
    pub(super) fn root(&mut self, directive: &Directive) -> Result<()> {
        match (directive.words.as_slice(), directive.options.first()) {
            ([folder], None) => self.root = Some(PathBuf::from(folder)),
            (_, Some(option)) => return Err(unknown(option)),
            _ => return Err(wrong(directive, "one folder is expected")),
        }
        Ok(())
    }

    /// Puts the folder before the names of files, wherever in the block it was named.
    pub(super) fn put_root(&mut self) {
        let Some(root) = &self.root else { return };
        let keys = self.rules.dnssec.iter_mut().flat_map(|dnssec| &mut dnssec.keys);
        let files = self.rules.files.iter_mut().map(|zone| &mut zone.file);
        let weights = match &mut self.rules.order.policy {
            OrderPolicy::Weighted(weights) => Some(&mut weights.file),
            OrderPolicy::Turns | OrderPolicy::AsTheyCome => None,
        };
        files.chain(keys).chain(weights).for_each(|file| *file = root.join(&*file));
    }
}
