//! Where in a configuration an error is: the name of a field helps people more than a line and a column, of which the
//! runtime makes its own. Looked for only when there is an error.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Reads JSON; an error names the field.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        let place = offset(text, error.line(), error.column()).map(|end| before(text, end));
        match place.filter(|place| !place.is_empty() && error.classify() == Category::Data) {
            Some(mut place) => {
                let message = error.to_string();
                // Said of the object: when all of it was read, or its field was seen for the second time.
                let at = place.kind;
                if message.starts_with("missing field") && at == Kind::Plain
                    || message.starts_with("duplicate field") && at != Kind::Opened
                {
                    place.steps.pop();
                }
                if place.is_empty() { message } else { format!("{}: {message}", place.name()) }
            }
            None => error.to_string(),
        }
    })
}

/// The byte at a line and a column, both from 1; the column counts bytes that were read.
fn offset(text: &[u8], line: usize, column: usize) -> Option<usize> {
    let start: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.checked_sub(1)?).map(<[u8]>::len).sum();
    Some((start + column).min(text.len()))
}

/// A way from the outermost value in.
#[derive(Clone, Default)]
struct Place {
    steps: Vec<Step>,
    kind: Kind,
}

/// What of a value there was.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    /// A value without parts.
    #[default]
    Plain,
    /// The beginning of an object or of a list.
    Opened,
    /// The end of one.
    Closed,
}

#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

impl Place {
    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn name(&self) -> String {
        let mut name = String::new();
        for step in &self.steps {
            match step {
                Step::Key(key) if name.is_empty() => name.push_str(key),
                Step::Key(key) => name.extend([".", key]),
                Step::Index(index) => name.extend(["[", &index.to_string(), "]"]),
            }
        }
        name
    }
}

/// The value that was begun or ended last before `end`, in JSON that is well-formed up to there.
fn before(text: &[u8], end: usize) -> Place {
    let mut at = 0;
    // The steps to the value that comes next, and to the one that came last.
    let (mut steps, mut last): (Vec<Step>, Place) = (Vec::new(), Place::default());
    let mut expects_key = false;
    while at < end {
        match text[at] {
            opening @ (b'{' | b'[') => {
                last = Place { steps: steps.clone(), kind: Kind::Opened };
                expects_key = opening == b'{';
                steps.push(if expects_key { Step::Key(String::new()) } else { Step::Index(0) });
            }
            b'}' | b']' => {
                steps.pop();
                last = Place { steps: steps.clone(), kind: Kind::Closed };
                expects_key = false;
            }
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                _ => expects_key = true,
            },
            b':' => expects_key = false,
            b'"' => {
                let length = string(&text[at..]);
                let word = &text[at..(at + length).min(text.len())];
                if expects_key {
                    if let Some(Step::Key(key)) = steps.last_mut() {
                        *key = serde_json::from_slice(word).unwrap_or_default();
                    }
                } else {
                    last = Place { steps: steps.clone(), kind: Kind::Plain };
                }
                at += length;
                continue;
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => last = Place { steps: steps.clone(), kind: Kind::Plain },
        }
        at += 1;
    }
    last
}

/// How long the string is that a text begins with, quotation marks and all.
fn string(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_before_a_place_is_named() {
        let text = br#"{"a":{"b":[1,{"c\"d":"x]"},[true]],"e":null},"f":{}}"#;
        let named = |part: &str| {
            let at = String::from_utf8_lossy(text).find(part).unwrap();
            before(text, at + part.len()).name()
        };
        for (part, expected) in [
            ("\"b\":[1", "a.b[0]"),
            ("\"x]\"", "a.b[1].c\"d"),
            ("\"x]\"}", "a.b[1]"),
            ("[true", "a.b[2][0]"),
            ("[true]", "a.b[2]"),
            ("[true]]", "a.b"),
            ("null", "a.e"),
            ("\"f\":{", "f"),
            ("\"a\":", ""),
        ] {
            assert_eq!(named(part), expected, "{part}");
        }
        assert_eq!(offset(b"ab\ncd\n", 2, 1), Some(4));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\":,a1 \\\\\n]{0,60}", end in 0_usize..80) {
            let _ = before(text.as_bytes(), end.min(text.len())).name();
            let _ = read::<super::super::Config>(text.as_bytes());
        }
    }
}
