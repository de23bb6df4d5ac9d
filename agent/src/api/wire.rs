//! What the API says: pages of lists and events of watches, taken apart as far as the source needs. Pure.

use std::collections::BTreeMap;

use kube::core::Status;
use serde::Deserialize;

use super::json::{self, Malformed};

/// The annotation of the bookmark that ends a streamed list.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// The version of the collection that the list is of.
    pub(super) version: Option<String>,
    /// What to ask for the next page with; `None` on the last.
    pub(super) next: Option<String>,
    /// The objects.
    pub(super) items: Vec<&'a [u8]>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl<'a> Page<'a> {
    /// Takes a page apart.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let (mut head, mut items) = (None, None);
        json::members(text, |name, value| match name {
            "metadata" => head = Some(value),
            "items" => items = Some(value),
            _ => {}
        })?;
        let head: ListMeta = head.map(json::read).transpose()?.unwrap_or_default();
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            version: said(head.resource_version),
            next: said(head.next),
            items: json::elements(items.unwrap_or(b"null"))?,
        })
    }
}

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// An object came or changed.
    Changed(&'a [u8]),
    /// An object is gone; this is the last that was known of it.
    Deleted(&'a [u8]),
    /// Nothing happened up to this version.
    Bookmark {
        /// The version.
        version: Option<String>,
        /// With this the list is complete that the watch began with.
        ends_list: bool,
    },
    /// The watch has failed.
    Error(Box<Status>),
    /// Something else.
    Unknown(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl<'a> Event<'a> {
    /// Takes a line of a watch apart.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Malformed> {
        let (what, object) = match as_usual(line) {
            Some(parts) => parts,
            None => {
                let (mut what, mut object) = (&b"\"\""[..], &b"null"[..]);
                json::members(line, |name, value| match name {
                    "type" => what = value,
                    "object" => object = value,
                    _ => {}
                })?;
                (what, object)
            }
        };
        Ok(match what {
            b"\"ADDED\"" | b"\"MODIFIED\"" => Self::Changed(object),
            b"\"DELETED\"" => Self::Deleted(object),
            b"\"ERROR\"" => Self::Error(Box::new(json::read(object)?)),
            b"\"BOOKMARK\"" => {
                let Bookmark { metadata } = json::read(object)?;
                let ends_list = metadata.annotations.get(LIST_ENDS).is_some_and(|value| value == "true");
                Self::Bookmark { version: metadata.resource_version, ends_list }
            }
            other => Self::Unknown(String::from_utf8_lossy(other).into_owned()),
        })
    }
}

/// Type and object of a line as API servers write it, without a look at the whole of it: whoever reads the object sees
/// whether it is one.
fn as_usual(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"{\"type\":\"")?;
    let length = rest.iter().position(|byte| !byte.is_ascii_uppercase())?;
    let object = rest[length..].strip_prefix(b"\",\"object\":")?.strip_suffix(b"}")?;
    let is_object = object.starts_with(b"{") && object.ends_with(b"}");
    // The type with its quotes.
    is_object.then(|| (&line[8..8 + length + 2], object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_list_goes_on() {
        let text = br#"{"kind":"NodeList","metadata":{"resourceVersion":"7","continue":"x","remainingItemCount":3},"items":[{"a":1},{}]}"#;
        let page = Page::parse(text).unwrap();
        assert_eq!((page.version.as_deref(), page.next.as_deref()), (Some("7"), Some("x")));
        assert_eq!(page.items, [&br#"{"a":1}"#[..], b"{}"]);
        let last =
            Page::parse(br#"{"metadata":{"resourceVersion":"7","continue":""},"items":null}"#).unwrap();
        assert!(last.next.is_none() && last.items.is_empty());
        assert!(Page::parse(b"<html>").is_err());
    }

    #[test]
    fn events_are_told_by_their_type() {
        let kind = |text: &str| match Event::parse(text.as_bytes()) {
            Ok(Event::Changed(object)) => format!("+{}", String::from_utf8_lossy(object)),
            Ok(Event::Deleted(object)) => format!("-{}", String::from_utf8_lossy(object)),
            Ok(Event::Bookmark { version, ends_list }) => format!("at {version:?} {ends_list}"),
            Ok(Event::Error(status)) => format!("error {}", status.code),
            Ok(Event::Unknown(what)) => format!("unknown {what}"),
            Err(_) => "malformed".to_owned(),
        };
        let table = [
            (r#"{"type":"ADDED","object":{"a":1}}"#, r#"+{"a":1}"#),
            (r#"{"object":{},"type":"MODIFIED"}"#, "+{}"),
            (r#"{"type":"DELETED","object":{}}"#, "-{}"),
            (r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#, "at Some(\"7\") false"),
            (
                r#"{"type":"BOOKMARK","object":{"metadata":{"annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
                "at None true",
            ),
            (r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#, "error 410"),
            (r#"{"type":"NEW","object":{}}"#, "unknown \"NEW\""),
            (r#"{"type":"ADDED","object":{"#, "malformed"),
        ];
        for (text, expected) in table {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
