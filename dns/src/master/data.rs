//! Data of records, from words to what stands in messages: a row for each type.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER_PERMISSIVE};
use hickory_proto::{
    rr::{RData, RecordType},
    serialize::binary::{BinEncodable, BinEncoder, NameEncoding},
};

use super::text::{Word, name, number};
use crate::{name::WireName, records::push_types, wire::rtype as types};

/// What a word, or all that are left, stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    V4,
    V6,
    Name,
    U8,
    U16,
    U32,
    /// Seconds, with units.
    Seconds,
    /// A text with its length before it.
    Text,
    /// All texts that are left, one at least.
    Texts,
    /// A text to the end.
    Rest,
    /// All that is left, in hexadecimal.
    Hex,
    /// A word in hexadecimal with its length before it; `-` is nothing.
    Salt,
    /// A word in base 32 with its length before it.
    Hash,
    /// All that is left, in base 64.
    Base64,
    /// A type's name.
    Type,
    /// All that are left: types.
    Types,
    /// A moment: seconds, or YYYYMMDDHHmmSS.
    Time,
}

use Field::{
    Base64, Hash, Hex, Name, Rest, Salt, Seconds, Text, Texts, Time, Type, Types, U8, U16, U32, V4, V6,
};

/// Types, their names, and what their data is.
const ROWS: &[(u16, &str, &[Field])] = &[
    (types::A, "A", &[V4]),
    (types::NS, "NS", &[Name]),
    (types::CNAME, "CNAME", &[Name]),
    (types::SOA, "SOA", &[Name, Name, U32, Seconds, Seconds, Seconds, Seconds]),
    (types::PTR, "PTR", &[Name]),
    (types::HINFO, "HINFO", &[Text, Text]),
    (types::MX, "MX", &[U16, Name]),
    (types::TXT, "TXT", &[Texts]),
    (17, "RP", &[Name, Name]),
    (18, "AFSDB", &[U16, Name]),
    (types::AAAA, "AAAA", &[V6]),
    (types::SRV, "SRV", &[U16, U16, U16, Name]),
    (35, "NAPTR", &[U16, U16, Text, Text, Text, Name]),
    (36, "KX", &[U16, Name]),
    (37, "CERT", &[U16, U16, U8, Base64]),
    (types::DNAME, "DNAME", &[Name]),
    (types::DS, "DS", &[U16, U8, U8, Hex]),
    (44, "SSHFP", &[U8, U8, Hex]),
    (types::RRSIG, "RRSIG", &[Type, U8, U8, U32, Time, Time, U16, Name, Base64]),
    (types::NSEC, "NSEC", &[Name, Types]),
    (types::DNSKEY, "DNSKEY", &[U16, U8, U8, Base64]),
    (50, "NSEC3", &[U8, U8, U16, Salt, Hash, Types]),
    (51, "NSEC3PARAM", &[U8, U8, U16, Salt]),
    (52, "TLSA", &[U8, U8, U8, Hex]),
    (53, "SMIMEA", &[U8, U8, U8, Hex]),
    (59, "CDS", &[U16, U8, U8, Hex]),
    (60, "CDNSKEY", &[U16, U8, U8, Base64]),
    (61, "OPENPGPKEY", &[Base64]),
    (99, "SPF", &[Texts]),
    (256, "URI", &[U16, U16, Rest]),
    (257, "CAA", &[U8, Text, Rest]),
];

/// Types that are of messages, not of zones.
fn is_meta(rtype: u16) -> bool {
    rtype == 0 || rtype == types::OPT || (128..=255).contains(&rtype)
}

/// The number of a type.
pub(super) fn rtype(word: &Word) -> Option<u16> {
    let text = word.plain()?.to_ascii_uppercase();
    let own = ROWS.iter().find(|(_, name, _)| *name == text).map(|(number, ..)| *number);
    let numbered = || text.strip_prefix("TYPE")?.parse().ok();
    let known = || RecordType::from_str(&text).ok().map(u16::from);
    own.or_else(numbered).or_else(known).filter(|rtype| !is_meta(*rtype))
}

/// The data of a record of this type.
pub(super) fn data(rtype: u16, words: &[Word], origin: &WireName) -> Result<Vec<u8>, String> {
    if let [mark, rest @ ..] = words
        && mark.text == b"\\#"
    {
        return unknown(rest);
    }
    let data = match ROWS.iter().find(|(number, ..)| *number == rtype) {
        Some((_, _, fields)) => by_fields(fields, words, origin)?,
        None => by_library(rtype, words, origin)?,
    };
    if data.len() > usize::from(u16::MAX) { Err("the data is too long".to_owned()) } else { Ok(data) }
}

/// RFC 3597, 5: a length and bytes in hexadecimal.
fn unknown(words: &[Word]) -> Result<Vec<u8>, String> {
    let [length, rest @ ..] = words else { return Err("a length is expected".to_owned()) };
    let length: u16 = parsed(length, "a length")?;
    let data = joined(rest).and_then(|text| HEXLOWER_PERMISSIVE.decode(&text).ok());
    let data = data.filter(|data| data.len() == usize::from(length));
    data.ok_or_else(|| format!("{length} bytes in hexadecimal are expected"))
}

fn parsed<T: FromStr>(word: &Word, what: &str) -> Result<T, String> {
    let text = word.plain().and_then(|text| text.parse().ok());
    text.ok_or_else(|| format!("{word} is not {what}"))
}

/// Words without what parts them.
fn joined(words: &[Word]) -> Option<Vec<u8>> {
    let text: Vec<u8> = words.iter().flat_map(|word| word.text.iter().copied()).collect();
    text.is_ascii().then_some(text)
}

fn push_text(out: &mut Vec<u8>, bytes: &[u8], word: &Word) -> Result<(), String> {
    let length = u8::try_from(bytes.len()).map_err(|_| format!("{word} is longer than 255 bytes"))?;
    out.push(length);
    out.extend(bytes);
    Ok(())
}

fn by_fields(fields: &[Field], words: &[Word], origin: &WireName) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = words;
    for field in fields {
        let all = std::mem::take(&mut rest);
        match field {
            Field::Texts if !all.is_empty() => {
                for word in all {
                    push_text(&mut out, &word.decoded()?, word)?;
                }
                continue;
            }
            Field::Hex | Field::Base64 if !all.is_empty() => {
                let text = joined(all);
                let bytes = text.and_then(|text| match field {
                    Field::Hex => HEXLOWER_PERMISSIVE.decode(&text).ok(),
                    _ => BASE64.decode(&text).ok(),
                });
                let what = if *field == Field::Hex { "hexadecimal" } else { "base 64" };
                out.extend(bytes.ok_or_else(|| format!("{} is not in {what}", all[0]))?);
                continue;
            }
            Field::Types => {
                let number = |word: &Word| rtype(word).ok_or_else(|| format!("{word} is not a record type"));
                push_types(&mut out, all.iter().map(number).collect::<Result<Vec<_>, _>>()?);
                continue;
            }
            _ => {}
        }
        let (word, after) = all.split_first().ok_or("there is less than the type needs")?;
        rest = after;
        match field {
            Field::V4 => out.extend(parsed::<Ipv4Addr>(word, "an IPv4 address")?.octets()),
            Field::V6 => out.extend(parsed::<Ipv6Addr>(word, "an IPv6 address")?.octets()),
            Field::Name => out.extend(name(word, origin)?.as_bytes()),
            Field::U8 => out.push(parsed(word, "a number up to 255")?),
            Field::U16 => out.extend(parsed::<u16>(word, "a number up to 65535")?.to_be_bytes()),
            Field::U32 => out.extend(parsed::<u32>(word, "a number up to 4294967295")?.to_be_bytes()),
            Field::Seconds => {
                out.extend(number(word).ok_or_else(|| format!("{word} is not a time"))?.to_be_bytes());
            }
            Field::Text => push_text(&mut out, &word.decoded()?, word)?,
            Field::Rest => out.extend(word.decoded()?),
            Field::Type => {
                out.extend(rtype(word).ok_or_else(|| format!("{word} is not a record type"))?.to_be_bytes());
            }
            Field::Salt if word.text == b"-" => out.push(0),
            Field::Salt | Field::Hash => {
                let text = word.text.to_ascii_uppercase();
                let bytes = match field {
                    Field::Salt => HEXLOWER_PERMISSIVE.decode(&text).ok(),
                    _ => BASE32HEX_NOPAD.decode(&text).ok(),
                };
                push_text(&mut out, &bytes.ok_or_else(|| format!("{word} is not a hash"))?, word)?;
            }
            Field::Time => {
                out.extend(moment(word).ok_or_else(|| format!("{word} is not a time"))?.to_be_bytes());
            }
            Field::Texts | Field::Hex | Field::Base64 | Field::Types => {}
        }
    }
    rest.first().map_or(Ok(out), |word| Err(format!("{word} is one word too many")))
}

/// RFC 4034, 3.2: seconds since 1970, or the date and the time.
fn moment(word: &Word) -> Option<u32> {
    let text = word.plain().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    if text.len() != 14 {
        return text.parse().ok();
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 by the calendar, the year beginning with March.
    let shifted = year - i64::from(month <= 2);
    let months = (month + 9) % 12;
    let days =
        shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (months * 306 + 5) / 10 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    // Serial arithmetic (RFC 4034, 3.1.5).
    (seconds >= 0).then_some(seconds as u32)
}

/// Types whose data has a language of its own (SVCB, HTTPS).
fn by_library(rtype: u16, words: &[Word], origin: &WireName) -> Result<Vec<u8>, String> {
    let kind = RecordType::from(rtype);
    if !matches!(kind, RecordType::SVCB | RecordType::HTTPS | RecordType::CSYNC) {
        return Err(format!("data of type TYPE{rtype} is read in the form of RFC 3597 alone"));
    }
    let mut text = String::new();
    for (place, word) in words.iter().enumerate() {
        let word = match place {
            1 if kind != RecordType::CSYNC => name(word, origin)?.to_string(),
            _ => word.to_string(),
        };
        text.push_str(&word);
        text.push(' ');
    }
    let data = RData::try_from_str(kind, &text).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let mut encoder = BinEncoder::new(&mut out);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    data.emit(&mut encoder).map_err(|error| error.to_string())?;
    Ok(out)
}
