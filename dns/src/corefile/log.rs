//! The directive `log`.

use super::{
    directives::{Block, Result, unknown, word_duration},
    syntax::Directive,
};
use crate::{AnswerClass, LogRule};

impl Block<'_> {
    pub(super) fn log(&mut self, directive: &Directive) -> Result<()> {
        let mut rule = LogRule::default();
        for (place, word) in directive.words.iter().enumerate() {
            // The format comes last, and has braces in it.
            if place + 1 == directive.words.len() && word.contains('{') {
                rule.format.clone_from(word);
            } else {
                rule.zones.push(word.clone());
            }
        }
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("class", classes) if !classes.is_empty() => {
                    for class in classes {
                        match class.as_str() {
                            "success" => rule.classes.push(AnswerClass::Success),
                            "denial" => rule.classes.push(AnswerClass::Denial),
                            "error" => rule.classes.push(AnswerClass::Error),
                            "all" => {
                                let all = [AnswerClass::Success, AnswerClass::Denial, AnswerClass::Error];
                                rule.classes.extend(all);
                            }
                            _ => return Err(unknown(option)),
                        }
                    }
                }
                ("minDuration", [time]) => rule.slower_than = Some(word_duration(option, time)?),
                _ => return Err(unknown(option)),
            }
        }
        self.rules.log.push(rule);
        Ok(())
    }
}
