//! Words of a master file: names, numbers and texts, with what is escaped in them (RFC 1035, 5.1).

use std::fmt;

use crate::name::{WireName, push_label};

/// A word as it is written, with its escapes and without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: Vec<u8>,
    pub(super) is_quoted: bool,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.text);
        if self.is_quoted { write!(f, "\"{text}\"") } else { f.write_str(&text) }
    }
}

impl Word {
    /// Its bytes, whatever was escaped among them.
    pub(super) fn decoded(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(self.text.len());
        let mut rest = self.text.as_slice();
        while let Some((byte, _, after)) = self.split(rest)? {
            out.push(byte);
            rest = after;
        }
        Ok(out)
    }

    /// The first byte of a part of the word, whether it was escaped, and what follows.
    fn split<'w>(&self, text: &'w [u8]) -> Result<Option<(u8, bool, &'w [u8])>, String> {
        match text {
            [] => Ok(None),
            [b'\\', digits @ ..] if digits.first().is_some_and(u8::is_ascii_digit) => {
                let read = || {
                    let digits = digits.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
                    std::str::from_utf8(digits).ok()?.parse().ok()
                };
                let byte = read().ok_or_else(|| format!("{self} has an escape that is no byte"))?;
                Ok(Some((byte, true, &digits[3..])))
            }
            [b'\\', byte, rest @ ..] => Ok(Some((*byte, true, rest))),
            [b'\\'] => Err(format!("{self} ends with an escape")),
            [byte, rest @ ..] => Ok(Some((*byte, false, rest))),
        }
    }

    /// Its text where it is one of letters and digits.
    pub(super) fn plain(&self) -> Option<&str> {
        std::str::from_utf8(&self.text).ok().filter(|text| text.is_ascii())
    }
}

/// A name: complete with a final dot, or else below `origin`, which `@` stands for.
pub(super) fn name(word: &Word, origin: &WireName) -> Result<WireName, String> {
    let wrong = || format!("{word} is not a domain name");
    if word.text == b"@" && !word.is_quoted {
        return Ok(origin.clone());
    }
    if word.text == b"." {
        return WireName::parse(".").ok_or_else(wrong);
    }
    let mut labels = Vec::new();
    let mut label = Vec::new();
    let mut is_complete = false;
    let mut rest = word.text.as_slice();
    while let Some((byte, is_escaped, after)) = word.split(rest)? {
        rest = after;
        is_complete = byte == b'.' && !is_escaped;
        if !is_complete {
            label.push(byte);
        } else if !push_label(&mut labels, &label) {
            return Err(wrong());
        } else {
            label.clear();
        }
    }
    if !is_complete && !push_label(&mut labels, &label) {
        return Err(wrong());
    }
    WireName::join(&labels, if is_complete { b"\0" } else { origin.as_bytes() }).ok_or_else(wrong)
}

/// A number of seconds: digits, or such with the units of weeks, days, hours, minutes and seconds.
pub(super) fn number(word: &Word) -> Option<u32> {
    let text =
        word.plain().filter(|text| !word.is_quoted && text.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut total: u32 = 0;
    let mut part: u32 = 0;
    let mut is_open = false;
    for byte in text.bytes() {
        let unit = match byte.to_ascii_lowercase() {
            b'0'..=b'9' => {
                part = part.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
                is_open = true;
                continue;
            }
            b'w' => 604_800,
            b'd' => 86_400,
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        if !std::mem::take(&mut is_open) {
            return None;
        }
        total = total.checked_add(std::mem::take(&mut part).checked_mul(unit)?)?;
    }
    total.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word {
        Word { text: text.as_bytes().to_vec(), is_quoted: false }
    }

    #[test]
    fn names_with_escapes() {
        let origin = WireName::parse("example.org").unwrap();
        for (text, wire) in [
            ("@", &b"\x07example\x03org\0"[..]),
            (".", b"\0"),
            ("WWW", b"\x03www\x07example\x03org\0"),
            ("a.b.", b"\x01a\x01b\0"),
            ("a\\.b.", b"\x03a.b\0"),
            ("a\\046b.", b"\x03a.b\0"),
            ("a\\\\.", b"\x02a\\\0"),
            ("\\@", b"\x01@\x07example\x03org\0"),
            ("*.\\000.", b"\x01*\x01\0\0"),
        ] {
            assert_eq!(name(&word(text), &origin).unwrap().as_bytes(), wire, "{text}");
        }
        for text in
            ["", "a..b", ".a", "..", "\\", "\\25", "\\256", "a\\2x", &"a".repeat(64), &"abc.".repeat(64)]
        {
            assert!(name(&word(text), &origin).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_have_units() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("3600", Some(3600)),
            ("1h30m", Some(5400)),
            ("2W", Some(1_209_600)),
            ("1d12", Some(86_412)),
            ("", None),
            ("h", None),
            ("1hh", None),
            ("1x", None),
            ("-1", None),
            ("4294967296", None),
            ("9999w9999w", None),
        ] {
            assert_eq!(number(&word(text)), wanted, "{text}");
        }
    }
}
