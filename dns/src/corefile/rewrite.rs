//! The directive `rewrite`.

use std::str::FromStr;

use hickory_proto::rr::{DNSClass, RecordType};

use super::{
    directives::{Block, Result, rcode},
    syntax::Directive,
    wrong,
};
use crate::{
    AnswerChange, Change, EdnsOption, NameMatch, NamePattern, OptionChange, OptionData, OptionWhen, Rewrite,
};

type Words<'w> = &'w [&'w str];

impl Block<'_> {
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
        let [field, rest @ ..] = words else {
            return Err(wrong(directive, "what is rewritten is expected"));
        };
        let change = match *field {
            "name" => name(directive, rest)?,
            "type" => {
                let [from, to] = two(directive, rest)?;
                Change::Type { from: record_type(directive, from)?, to: record_type(directive, to)? }
            }
            "class" => {
                let [from, to] = two(directive, rest)?;
                Change::Class { from: class(directive, from)?, to: class(directive, to)? }
            }
            "ttl" => {
                let (on, rest) = pattern(rest, 1);
                let [text, bounds] = two(directive, rest)?;
                let (least, most) = bounds_of(bounds).ok_or_else(|| {
                    wrong(directive, format!("{bounds:?} is not seconds, or a range of them"))
                })?;
                Change::Ttl { on: NamePattern { matches: on, text: text.to_owned() }, least, most }
            }
            "rcode" => {
                let (on, rest) = pattern(rest, 2);
                let [text, from, to] = rest else {
                    return Err(wrong(directive, "a name and two response codes are expected"));
                };
                let code = |text: &str| {
                    let number = text.parse().ok().or_else(|| rcode(text)).filter(|code: &u16| *code < 16);
                    number.ok_or_else(|| wrong(directive, format!("{text:?} is not a response code")))
                };
                let on = NamePattern { matches: on, text: (*text).to_owned() };
                Change::Rcode { on, from: code(from)?, to: code(to)? }
            }
            "cname" => {
                let (on, rest) = pattern(rest, 1);
                let [text, to] = two(directive, rest)?;
                Change::Alias { on: NamePattern { matches: on, text: text.to_owned() }, to: to.to_owned() }
            }
            "edns0" => Change::Option(option(directive, rest)?),
            other => return Err(wrong(directive, format!("{other:?} cannot be rewritten"))),
        };
        self.rules.rewrites.push(Rewrite { change, and_on });
        Ok(())
    }
}

fn two<'w>(directive: &Directive, words: Words<'w>) -> Result<[&'w str; 2]> {
    match words {
        [a, b] => Ok([a, b]),
        [.., more] if words.len() > 2 => Err(wrong(directive, format!("{more:?} is not supported"))),
        _ => Err(wrong(directive, "what is looked for and what is put in its place are expected")),
    }
}

/// How names are compared, if it is said, and the rest, which is the text and so many words.
fn pattern(words: Words<'_>, after: usize) -> (NameMatch, Words<'_>) {
    let (matches, rest) = match words {
        ["exact", rest @ ..] => (NameMatch::Exact, rest),
        ["prefix", rest @ ..] => (NameMatch::Prefix, rest),
        ["suffix", rest @ ..] => (NameMatch::Suffix, rest),
        ["substring", rest @ ..] => (NameMatch::Substring, rest),
        ["regex", rest @ ..] => (NameMatch::Regex, rest),
        _ => (NameMatch::Exact, words),
    };
    // A name may be one of these words.
    if rest.len() > after { (matches, rest) } else { (NameMatch::Exact, words) }
}

fn name(directive: &Directive, words: Words<'_>) -> Result<Change> {
    let (matches, rest) = pattern(words, 1);
    let [text, to, rest @ ..] = rest else {
        return Err(wrong(directive, "what is looked for and what is put in its place are expected"));
    };
    let mut answers = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        rest = match rest {
            ["answer", rest @ ..] => rest,
            _ if !answers.is_empty() => rest,
            [word, ..] => return Err(wrong(directive, format!("{word:?} is not supported"))),
            [] => break,
        };
        rest = match rest {
            ["auto", rest @ ..] | ["name", "auto", rest @ ..] => {
                answers.push(AnswerChange::Auto);
                rest
            }
            ["name", from, to, rest @ ..] => {
                answers.push(AnswerChange::Owner { from: (*from).to_owned(), to: (*to).to_owned() });
                rest
            }
            ["value", from, to, rest @ ..] => {
                answers.push(AnswerChange::Value { from: (*from).to_owned(), to: (*to).to_owned() });
                rest
            }
            _ => {
                let problem = "auto, or name or value with two expressions, are expected after \"answer\"";
                return Err(wrong(directive, problem));
            }
        };
    }
    let on = NamePattern { matches, text: (*text).to_owned() };
    Ok(Change::Name { on, to: (*to).to_owned(), answers })
}

fn record_type(directive: &Directive, text: &str) -> Result<u16> {
    let known = RecordType::from_str(&text.to_ascii_uppercase());
    known.map(u16::from).map_err(|_| wrong(directive, format!("{text:?} is not a record type")))
}

fn class(directive: &Directive, text: &str) -> Result<u16> {
    let known = DNSClass::from_str(&text.to_ascii_uppercase());
    known.map(u16::from).map_err(|_| wrong(directive, format!("{text:?} is not a class")))
}

/// `30`, `30-300`, `-300`, `30-`.
fn bounds_of(text: &str) -> Option<(u32, u32)> {
    let bound = |text: &str, open| if text.is_empty() { Some(open) } else { text.parse().ok() };
    let (least, most) = match text.split_once('-') {
        None => (text.parse().ok()?, text.parse().ok()?),
        Some(("", "")) => return None,
        Some((least, most)) => (bound(least, 0)?, bound(most, u32::MAX)?),
    };
    (least <= most).then_some((least, most))
}

fn option(directive: &Directive, words: Words<'_>) -> Result<OptionChange> {
    let [kind, when, rest @ ..] = words else {
        return Err(wrong(directive, "a kind of option and what to do with it are expected"));
    };
    let when = match *when {
        "set" => OptionWhen::Set,
        "append" => OptionWhen::Append,
        "replace" => OptionWhen::Replace,
        "unset" => OptionWhen::Unset,
        other => return Err(wrong(directive, format!("{other:?} is not set, append, replace or unset"))),
    };
    // Clients are never told of upstreams' options.
    let rest = rest.strip_suffix(&["revert"]).unwrap_or(rest);
    let option = match (*kind, rest) {
        ("local", [code, data @ ..]) if data.len() == usize::from(when != OptionWhen::Unset) => {
            let number = match code.strip_prefix("0x") {
                Some(digits) => u16::from_str_radix(digits, 16).ok(),
                None => code.parse().ok(),
            };
            let code = number.ok_or_else(|| wrong(directive, format!("{code:?} is not an option's code")))?;
            let data = data.first().map_or(Some(OptionData::Bytes(Vec::new())), |data| option_data(data));
            let data = data.ok_or_else(|| wrong(directive, "the option's data are not supported"))?;
            EdnsOption::Local { code, data }
        }
        ("nsid", []) => EdnsOption::Nsid,
        ("subnet", [v4, v6]) if when != OptionWhen::Unset => {
            let bits = |text: &str, most: u8| {
                let bits = text.parse().ok().filter(|bits| *bits <= most);
                bits.ok_or_else(|| wrong(directive, format!("{text:?} is not a number of bits")))
            };
            EdnsOption::Subnet { v4: bits(v4, 32)?, v6: bits(v6, 128)? }
        }
        ("subnet", []) if when == OptionWhen::Unset => EdnsOption::Subnet { v4: 0, v6: 0 },
        _ => return Err(wrong(directive, format!("{:?} is not supported", words.join(" ")))),
    };
    Ok(OptionChange { when, option })
}

fn option_data(text: &str) -> Option<OptionData> {
    if let Some(digits) = text.strip_prefix("0x") {
        let bytes = digits.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        return bytes.collect::<Option<Vec<u8>>>().map(OptionData::Bytes);
    }
    Some(match text {
        "{qname}" => OptionData::QueryName,
        "{qtype}" => OptionData::QueryType,
        "{client_ip}" => OptionData::ClientAddress,
        "{client_port}" => OptionData::ClientPort,
        "{protocol}" => OptionData::Protocol,
        _ if text.starts_with('{') => return None,
        _ => OptionData::Bytes(text.as_bytes().to_vec()),
    })
}
