//! The directive `cache`.

use std::time::Duration;

use super::{
    bad_option,
    directives::{Block, Result, option_duration, option_parsed, unknown, word_duration},
    syntax::{Directive, Setting},
    wrong,
};
use crate::{CacheConfig, Prefetch, ServeStale};

/// How long a failure may count at most (RFC 2308, 7; RFC 8767, 5).
const MAX_FAILURE: Duration = Duration::from_secs(300);

impl Block<'_> {
    pub(super) fn cache(&mut self, directive: &Directive) -> Result<()> {
        let cache = &mut self.cache;
        if cache.enabled {
            return Err(wrong(directive, "the second in this server block"));
        }
        *cache = CacheConfig { enabled: true, success_ttl: 3600, denial_ttl: 1800, ..CacheConfig::default() };
        let mut zones = directive.words.as_slice();
        if let Some((ttl, rest)) =
            zones.split_first().and_then(|(word, rest)| Some((word.parse().ok()?, rest)))
        {
            if ttl == 0 {
                return Err(wrong(directive, "a time of 0 keeps nothing"));
            }
            (cache.success_ttl, cache.denial_ttl) = (ttl, ttl);
            zones = rest;
        }
        cache.zones = zones.to_vec();
        let is_policy = |option: &&Setting| option.name == "serve_stale_policy";
        for option in directive.options.iter().filter(|option| !is_policy(option)) {
            read(cache, option)?;
        }
        // It says something of what another line switches on, whichever stands first.
        for option in directive.options.iter().filter(is_policy) {
            let Some(stale) = &mut cache.serve_stale else {
                return Err(bad_option(option, "serve_stale is missing"));
            };
            match option.words.as_slice() {
                [policy] if policy.eq_ignore_ascii_case("prefer_positive") => stale.prefer_positive = true,
                _ => return Err(unknown(option)),
            }
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
        ("servfail", [_]) => {
            let time = option_duration(option)?;
            if time > MAX_FAILURE {
                return Err(bad_option(option, "failures are kept for five minutes at most"));
            }
            cache.servfail_ttl = time.as_secs() as u32;
        }
        ("prefetch", [amount, rest @ ..]) if rest.len() <= 2 => {
            let percent = rest.get(1).map_or(Some("10"), |word| word.strip_suffix('%'));
            let percent: u8 = option_parsed(option, percent.unwrap_or("a number without %"), "a percentage")?;
            if !(10..=90).contains(&percent) {
                return Err(bad_option(option, format!("{percent}% is not between 10% and 90%")));
            }
            cache.prefetch = Some(Prefetch {
                hits: option_parsed(option, amount, "a number")?,
                within: rest
                    .first()
                    .map_or(Ok(Duration::from_secs(60)), |time| word_duration(option, time))?,
                percent,
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

/// `[DURATION] [immediate [TTL [PAUSE]] | verify [TIMEOUT [TTL [PAUSE]]]]`
fn serve_stale(option: &Setting, words: &[&str]) -> Result<ServeStale> {
    let mut stale = ServeStale::default();
    let is_time = |word: &&str| word.starts_with(|char: char| char.is_ascii_digit());
    let mut rest = words;
    if let Some((time, after)) = words.split_first().filter(|(word, _)| is_time(word)) {
        stale.duration = word_duration(option, time)?;
        rest = after;
    }
    let (mode, mut rest) = rest.split_first().unwrap_or((&"immediate", &[]));
    stale.verify = mode.eq_ignore_ascii_case("verify");
    if !(stale.verify || mode.eq_ignore_ascii_case("immediate")) {
        return Err(unknown(option));
    }
    if let (true, [time, after @ ..]) = (stale.verify, rest) {
        // None at all is as long as it takes.
        stale.patience = Some(word_duration(option, time)?).filter(|time| !time.is_zero());
        rest = after;
    }
    if let [told, after @ ..] = rest {
        let told = word_duration(option, told)?;
        let seconds = u32::try_from(told.as_secs()).ok().filter(|_| told.subsec_nanos() == 0);
        stale.ttl = seconds.ok_or_else(|| bad_option(option, "times to live are whole seconds"))?;
        rest = after;
    }
    if let [pause, after @ ..] = rest {
        stale.recheck = word_duration(option, pause)?;
        if stale.recheck > MAX_FAILURE {
            return Err(bad_option(option, "upstreams are asked again after five minutes at most"));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(stale) } else { Err(unknown(option)) }
}

fn lifetimes(option: &Setting, words: &[&str], most: &mut u32, least: &mut u32) -> Result<()> {
    if let Some(word) = words.first() {
        *most = option_parsed(option, word, "seconds")?;
        if *most == 0 {
            return Err(bad_option(option, "a time of 0 keeps nothing"));
        }
    }
    if let Some(word) = words.get(1) {
        *least = option_parsed(option, word, "seconds")?;
    }
    Ok(())
}
