//! A configuration of somebody else's, asked field by field: what is not asked for is left, and can be told.

use std::{fmt::Display, time::Duration};

use serde_json::{Map, Value};

use super::kube_proxy::KubeProxyError;

/// The fields of a section that nobody has asked for yet.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    path: String,
    pub(super) fields: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(path: String, value: Value) -> Result<Self, KubeProxyError> {
        match value {
            Value::Object(fields) => Ok(Self { path, fields }),
            Value::Null if !path.is_empty() => Ok(Self { path, fields: Map::new() }),
            _ => {
                let field = if path.is_empty() { "the whole".to_owned() } else { path };
                Err(KubeProxyError::Field { field, problem: "is not a set of fields".to_owned() })
            }
        }
    }

    pub(super) fn wrong(&self, field: &str, problem: impl Display) -> KubeProxyError {
        let dot = if self.path.is_empty() { "" } else { "." };
        KubeProxyError::Field { field: format!("{}{dot}{field}", self.path), problem: problem.to_string() }
    }

    /// Takes a section out; what it is not asked for goes back with [`Self::put_back`].
    pub(super) fn section(&mut self, name: &str) -> Result<Self, KubeProxyError> {
        Self::new(name.to_owned(), self.fields.remove(name).unwrap_or_default())
    }

    pub(super) fn put_back(&mut self, name: &str, section: Self) {
        self.fields.insert(name.to_owned(), Value::Object(section.fields));
    }

    /// A copy of a section, or of this one.
    pub(super) fn peek(&self, name: &str) -> Result<Self, KubeProxyError> {
        if name.is_empty() { Ok(self.clone()) } else { self.clone().section(name) }
    }

    /// A text; an empty one is none.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, KubeProxyError> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(name, format!("{other} is not a text"))),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, KubeProxyError> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(name, format!("{other} is neither true nor false"))),
        }
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<i64>, KubeProxyError> {
        let number = self.peek_number(name)?;
        self.fields.remove(name);
        Ok(number)
    }

    pub(super) fn peek_number(&self, name: &str) -> Result<Option<i64>, KubeProxyError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| self.wrong(name, format!("{value} is not a whole number"))),
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Vec<String>, KubeProxyError> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                let texts = values.into_iter().enumerate().map(|(index, value)| match value {
                    Value::String(text) => Ok(text),
                    other => Err(self.wrong(&format!("{name}[{index}]"), format!("{other} is not a text"))),
                });
                texts.collect()
            }
            Some(other) => Err(self.wrong(name, format!("{other} is not a list"))),
        }
    }

    /// A length of time as Go writes it; none at all is as good as absent.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>, KubeProxyError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let parsed: Option<jiff::SignedDuration> =
            if text == "0" { Some(jiff::SignedDuration::ZERO) } else { text.parse().ok() };
        let time = parsed
            .ok_or_else(|| self.wrong(name, format!("{text:?} is not a length of time such as 30s")))?;
        let time =
            Duration::try_from(time).map_err(|_| self.wrong(name, format!("{text} is less than 0")))?;
        Ok(Some(time).filter(|time| !time.is_zero()))
    }
}
