//! A YAML (or JSON) value that remembers where it stood, so that whatever is found wrong with it later can be
//! reported with its line.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A value and the line on which it begins, counted from 1 within its document.
#[derive(Clone, Debug)]
pub(super) struct Located {
    line: u64,
    node: Node,
}

#[derive(Clone, Debug)]
enum Node {
    Scalar(Value),
    Sequence(Vec<Located>),
    Mapping(Vec<(String, Located)>),
}

impl Located {
    /// Parses one document; `None` if there is nothing in it but comments.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, serde_saphyr::Error> {
        let options = serde_saphyr::options! { with_snippet: false };
        let parsed: Option<Self> = serde_saphyr::from_str_with_options(text, options)?;
        Ok(parsed.filter(|value| !matches!(value.node, Node::Scalar(Value::Null))))
    }

    /// The line on which this value begins.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The value of a mapping's key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.node {
            Node::Mapping(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a mapping's key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.node {
            Node::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The elements of a sequence; none for anything else.
    pub(super) fn elements(&self) -> &[Self] {
        match &self.node {
            Node::Sequence(elements) => elements,
            _ => &[],
        }
    }

    /// The line of what a path such as `spec.ports[0].port` leads to, or of the last part of the path that
    /// is there: what is missing is reported where it should be.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        let mut at = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match step.strip_suffix(']').map(str::parse::<usize>) {
                Some(Ok(index)) => at.elements().get(index),
                _ => at.get(step),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at.line
    }

    /// The value without the places.
    pub(super) fn to_value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::Sequence(elements) => elements.iter().map(Self::to_value).collect(),
            Node::Mapping(entries) => entries.iter().map(|(k, v)| (k.clone(), v.to_value())).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Node::Sequence(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let text = "kind: Service\nspec:\n  ports:\n  - port: 80\n    name: \"1\"\n  - {port: 81}\n";
        let value = Located::parse(text).unwrap().unwrap();
        assert_eq!(value.line_of("spec.ports[0].port"), 4);
        assert_eq!(value.line_of("spec.ports[0].name"), 5);
        assert_eq!(value.line_of("spec.ports[1].port"), 6);
        assert_eq!(value.line_of("spec.ports[0].nodePort"), 4, "what is missing is placed at its parent");
        assert_eq!(value.text("kind"), Some("Service"));
        let plain = value.to_value();
        assert_eq!(plain["spec"]["ports"][0]["port"], 80);
        assert_eq!(plain["spec"]["ports"][0]["name"], "1");
    }

    #[test]
    fn json_is_read_too() {
        let text = "{\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t}\n}\n";
        let value = Located::parse(text).unwrap().unwrap();
        assert_eq!(value.line_of("metadata.name"), 4);
        assert_eq!(value.to_value()["metadata"]["name"], "a");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(Located::parse("").unwrap().is_none());
        assert!(Located::parse("# only a comment\n").unwrap().is_none());
        assert!(Located::parse("null\n").unwrap().is_none());
    }

    #[test]
    fn scalars_have_the_types_of_yaml() {
        let value =
            Located::parse("a: 1\nb: \"1\"\nc: true\nd: 10.96.0.10\ne:\nf: None\ng: 1.5\n").unwrap().unwrap();
        let expected = serde_json::json!({
            "a": 1, "b": "1", "c": true, "d": "10.96.0.10", "e": null, "f": "None", "g": 1.5
        });
        assert_eq!(value.to_value(), expected);
    }
}
