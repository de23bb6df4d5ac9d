//! JSON taken apart without being understood: the members of an object and the elements of an array, each as the
//! bytes that it was sent as.
//!
//! So an element that cannot be read costs no other one, the whole need not be in memory twice, and an element
//! that has not changed since is known by its bytes. (`RawValue` would do the same, but has to be switched on for
//! everybody who uses serde_json in the build.)

use std::borrow::Cow;

use memchr::memmem;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Deserializer, Error};

/// What a piece of JSON turned out not to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// It is no JSON.
    #[error(transparent)]
    Json(#[from] Error),
    /// It is JSON, but of another form.
    #[error("there is no {0} at byte {1}")]
    Unexpected(&'static str, usize),
}

/// A place in a text.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        let space = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += space;
    }

    /// Steps over a byte if it is the next one.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(Malformed::Unexpected(name, self.at)) }
    }

    /// Steps over a value, and gives its bytes.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        self.skip_space();
        let rest = &self.text[self.at..];
        let mut values = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(value) => value?,
            None => return Err(Malformed::Unexpected("value", self.at)),
        };
        let length = values.byte_offset();
        self.at += length;
        Ok(&rest[..length])
    }
}

/// Calls `each` for every member of the object that `text` is, in their order.
pub(super) fn members<'a>(text: &'a [u8], mut each: impl FnMut(&str, &'a [u8])) -> Result<(), Malformed> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.expect(b'{', "'{'")?;
    if cursor.take(b'}') {
        return Ok(());
    }
    loop {
        let name: String = read(cursor.value()?)?;
        cursor.expect(b':', "':'")?;
        each(&name, cursor.value()?);
        if cursor.take(b'}') {
            return Ok(());
        }
        cursor.expect(b',', "','")?;
    }
}

/// The elements of the array that `text` is. `null` has none.
pub(super) fn elements(text: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut list = Vec::new();
    if text == b"null" {
        return Ok(list);
    }
    let mut cursor = Cursor { text, at: 0 };
    cursor.expect(b'[', "'['")?;
    if cursor.take(b']') {
        return Ok(list);
    }
    loop {
        list.push(cursor.value()?);
        if cursor.take(b']') {
            return Ok(list);
        }
        cursor.expect(b',', "','")?;
    }
}

/// The text of an object without the lists that nobody here reads, `unread`, each as its name and what follows it
/// (`"images":[`): to read them could cost as much as all the rest. What is not written as the API server writes it stays.
pub(super) fn lightened<'a>(text: &'a [u8], unread: &[&[u8]]) -> Cow<'a, [u8]> {
    let mut light: Vec<u8> = Vec::new();
    let mut taken = 0;
    while let Some((start, end)) = next_unread(text, unread, taken) {
        light.extend_from_slice(&text[taken..start]);
        light.extend_from_slice(b"null");
        taken = end;
    }
    if taken == 0 {
        return text.into();
    }
    light.extend_from_slice(&text[taken..]);
    light.into()
}

/// Where the value of the next such member begins and ends.
fn next_unread(text: &[u8], unread: &[&[u8]], from: usize) -> Option<(usize, usize)> {
    let rest = &text[from..];
    let found = |pattern: &&[u8]| Some((memmem::find(rest, pattern)?, pattern.len()));
    let (at, length) = unread.iter().filter_map(found).min()?;
    // A quote within a text has a backslash before it; then this is no name of a member.
    let escaped = at > 0 && rest[at - 1] == b'\\';
    let start = from + at + length - 1;
    let mut cursor = Cursor { text, at: start };
    (!escaped && cursor.value().is_ok()).then_some((start, cursor.at))
}

/// Reads a value.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Malformed> {
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(text: &str) -> Result<Vec<(String, String)>, Malformed> {
        let mut list = Vec::new();
        members(text.as_bytes(), |name, value| {
            list.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        })?;
        Ok(list)
    }

    #[test]
    fn values_come_as_they_were_sent() {
        let text = r#" { "a" : [1, {"b": "}]"}] , "c\u0064":12.5e3,"e":"\"," ,"f":null, "g":{} } "#;
        let found = taken_apart(text).unwrap();
        let expected =
            [("a", r#"[1, {"b": "}]"}]"#), ("cd", "12.5e3"), ("e", r#""\",""#), ("f", "null"), ("g", "{}")];
        let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(found, expected);
        assert_eq!(taken_apart("{}").unwrap(), []);
        assert_eq!(elements(b"[1,[2],\"3\" , {}]").unwrap(), [&b"1"[..], b"[2]", b"\"3\"", b"{}"]);
        assert!(elements(b"[ ]").unwrap().is_empty() && elements(b"null").unwrap().is_empty());
    }

    #[test]
    fn what_nobody_reads_is_cut_out_and_nothing_else() {
        let table = [
            (r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":"a"}}"#),
            (
                r#"{"metadata":{"managedFields":[{"f":"]}"},[1]],"name":"a"},"status":{"images":[{"names":["x"]}]}}"#,
                r#"{"metadata":{"managedFields":null,"name":"a"},"status":{"images":null}}"#,
            ),
            // Another's text, and values of another form.
            (r#"{"a":"\"images\":[","images":"x"}"#, r#"{"a":"\"images\":[","images":"x"}"#),
            (r#"{"a":"\"images":["#, r#"{"a":"\"images":["#),
            (r#"{"images":[1,"#, r#"{"images":[1,"#),
        ];
        for (text, expected) in table {
            assert_eq!(
                String::from_utf8_lossy(&lightened(
                    text.as_bytes(),
                    &[br#""managedFields":["#, br#""images":["#]
                )),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        let texts = [
            "",
            "[]",
            "{\"a\":[1,",
            "{\"a\":\"b",
            "{a:1}",
            "{\"a\":1",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1,}",
        ];
        for text in texts {
            assert!(taken_apart(text).is_err(), "{text}");
        }
        for text in ["{}", "[1", "[1 2]", "[,]"] {
            assert!(elements(text.as_bytes()).is_err(), "{text}");
        }
    }
}
