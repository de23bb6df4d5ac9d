//! The directive `cache`.

use std::time::Duration;

use super::{
    directives::{Block, Result, option_duration, option_parsed, unknown, word_duration},
    syntax::{Directive, Setting},
};
use crate::{CacheConfig, Prefetch, ServeStale};

impl Block<'_> {
    pub(super) fn cache(&mut self, directive: &Directive) -> Result<()> {
        let cache = &mut self.cache;
        *cache = CacheConfig { enabled: true, success_ttl: 3600, denial_ttl: 1800, ..CacheConfig::default() };
        let mut zones = directive.words.as_slice();
        if let Some((ttl, rest)) =
            zones.split_first().and_then(|(word, rest)| Some((word.parse().ok()?, rest)))
        {
            (cache.success_ttl, cache.denial_ttl) = (ttl, ttl);
            zones = rest;
        }
        cache.zones = zones.to_vec();
        for option in &directive.options {
            read(cache, option)?;
        }
        Ok(())
    }
}

fn read(cache: &mut CacheConfig, option: &Setting) -> Result<()> {
    let words: Vec<&str> = option.words.iter().map(String::as_str).collect();
    match (option.name.as_str(), words.as_slice()) {
        ("success", [capacity, rest @ ..]) if rest.len() <= 2 => {
            cache.success_capacity = option_parsed(option, capacity, "a number")?;
            lifetimes(option, rest, &mut cache.success_ttl, &mut cache.min_success_ttl)?;
        }
        ("denial", [capacity, rest @ ..]) if rest.len() <= 2 => {
            cache.denial_capacity = option_parsed(option, capacity, "a number")?;
            lifetimes(option, rest, &mut cache.denial_ttl, &mut cache.min_denial_ttl)?;
        }
        ("keepttl", []) => cache.keep_ttl = true,
        ("servfail", [_]) => cache.servfail_ttl = option_duration(option)?.as_secs().min(300) as u32,
        ("prefetch", [amount, rest @ ..]) if rest.len() <= 2 => {
            let percent = rest.get(1).map_or("10", |word| word.trim_end_matches('%'));
            cache.prefetch = Some(Prefetch {
                hits: option_parsed(option, amount, "a number")?,
                within: rest
                    .first()
                    .map_or(Ok(Duration::from_secs(60)), |time| word_duration(option, time))?,
                percent: option_parsed(option, percent, "a percentage")?,
            });
        }
        ("serve_stale", rest) => cache.serve_stale = Some(serve_stale(option, rest)?),
        // Without domains, of all names.
        ("disable", ["success"]) => cache.success_capacity = 0,
        ("disable", ["denial"]) => cache.denial_capacity = 0,
        ("disable", ["success", zones @ ..]) => {
            cache.no_success.extend(zones.iter().map(|&zone| zone.to_owned()));
        }
        ("disable", ["denial", zones @ ..]) => {
            cache.no_denial.extend(zones.iter().map(|&zone| zone.to_owned()));
        }
        _ => return Err(unknown(option)),
    }
    Ok(())
}

/// `[DURATION] [immediate [TTL] | verify [TIMEOUT [TTL]]]`
fn serve_stale(option: &Setting, words: &[&str]) -> Result<ServeStale> {
    let mut stale = ServeStale::default();
    let is_time = |word: &&str| word.starts_with(|char: char| char.is_ascii_digit());
    let mut rest = words;
    if let Some((time, after)) = words.split_first().filter(|(word, _)| is_time(word)) {
        stale.duration = word_duration(option, time)?;
        rest = after;
    }
    let ttl = |word: &str| Ok(word_duration(option, word)?.as_secs().min(u32::MAX.into()) as u32);
    match rest {
        [] | ["immediate"] => {}
        ["immediate", told] => stale.ttl = ttl(told)?,
        ["verify", rest @ ..] if rest.len() <= 2 => {
            stale.verify = true;
            // None at all is as long as it takes.
            let patience = rest.first().map(|time| word_duration(option, time)).transpose()?;
            stale.patience = patience.filter(|time| !time.is_zero());
            stale.ttl = rest.get(1).map_or(Ok(0), |told| ttl(told))?;
        }
        _ => return Err(unknown(option)),
    }
    Ok(stale)
}

fn lifetimes(option: &Setting, words: &[&str], most: &mut u32, least: &mut u32) -> Result<()> {
    if let Some(word) = words.first() {
        *most = option_parsed(option, word, "seconds")?;
    }
    if let Some(word) = words.get(1) {
        *least = option_parsed(option, word, "seconds")?;
    }
    Ok(())
}
