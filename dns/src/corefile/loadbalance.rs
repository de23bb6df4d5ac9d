//! The directive `loadbalance`.

use std::{path::PathBuf, time::Duration};

use super::{
    bad_option,
    directives::{Block, Result, option_duration, unknown},
    syntax::Directive,
    wrong,
};
use crate::{Order, OrderPolicy, WeightFile};

/// How often a file of weights is looked at where that is not said.
const RELOAD: Duration = Duration::from_secs(30);

impl Block<'_> {
    pub(super) fn loadbalance(&mut self, directive: &Directive) -> Result<()> {
        if self.rules.order != Order::AS_IT_COMES {
            return Err(wrong(directive, "the second in this server block"));
        }
        let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
        let mut policy = match words.as_slice() {
            [] | ["round_robin"] => OrderPolicy::Turns,
            ["weighted", file] => {
                OrderPolicy::Weighted(WeightFile { file: PathBuf::from(file), reload: RELOAD })
            }
            ["weighted"] => return Err(wrong(directive, "weighted needs a file of weights")),
            ["round_robin" | "weighted", .., last] => {
                return Err(wrong(directive, format!("{last:?} is one word too many")));
            }
            [other, ..] => return Err(wrong(directive, format!("the policy {other:?} is not supported"))),
        };
        let mut prefer = Vec::new();
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice(), &mut policy) {
                ("reload", [_], OrderPolicy::Weighted(weights)) => weights.reload = option_duration(option)?,
                ("reload", _, OrderPolicy::Turns | OrderPolicy::AsTheyCome) => {
                    return Err(bad_option(option, "is about the file of weighted"));
                }
                ("prefer", networks @ [_, ..], _) => {
                    for network in networks {
                        let bad = |_| bad_option(option, format!("{network:?} is not a network"));
                        prefer.push(network.parse().map_err(bad)?);
                    }
                }
                _ => return Err(unknown(option)),
            }
        }
        self.rules.order = Order { policy, prefer };
        Ok(())
    }
}
