//! Label and field selectors, as far as clients of a node use them.

/// One condition on a label or a field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Lacks(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// All conditions of a selector; no condition selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Condition>);

impl Selector {
    /// Reads `a=b,c!=d,e,!f,g in (h,i)`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        split(text).into_iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// The names that conditions are on.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|condition| match condition {
            Condition::Equals(name, _) | Condition::Differs(name, _) => name.as_str(),
            Condition::Exists(name) | Condition::Lacks(name) => name,
            Condition::In(name, _) | Condition::NotIn(name, _) => name,
        })
    }

    /// Whether an object matches whose values are found by `value`.
    pub(super) fn matches<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Equals(name, wanted) => value(name) == Some(wanted),
            Condition::Differs(name, unwanted) => value(name) != Some(unwanted),
            Condition::Exists(name) => value(name).is_some(),
            Condition::Lacks(name) => value(name).is_none(),
            Condition::In(name, list) => value(name).is_some_and(|value| list.iter().any(|one| one == value)),
            Condition::NotIn(name, list) => {
                !value(name).is_some_and(|value| list.iter().any(|one| one == value))
            }
        })
    }
}

/// The conditions' texts: commas within parentheses do not divide.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = text.split(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn condition(text: &str) -> Result<Condition, String> {
    let list = |values: &str| -> Vec<String> {
        values.trim().trim_matches(['(', ')']).split(',').map(|value| value.trim().to_owned()).collect()
    };
    let word = |text: &str| text.trim().to_owned();
    let found = if let Some((name, values)) = text.split_once(" notin ") {
        Condition::NotIn(word(name), list(values))
    } else if let Some((name, values)) = text.split_once(" in ") {
        Condition::In(word(name), list(values))
    } else if let Some((name, value)) = text.split_once("!=") {
        Condition::Differs(word(name), word(value))
    } else if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        Condition::Equals(word(name), word(value))
    } else if let Some(name) = text.strip_prefix('!') {
        Condition::Lacks(word(name))
    } else if text.contains(char::is_whitespace) {
        return Err(format!("unable to parse requirement: {text:?}"));
    } else {
        Condition::Exists(word(text))
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_as_kubernetes_has_them() {
        let value = |name: &str| match name {
            "a" => Some("1"),
            "b" => Some(""),
            _ => None,
        };
        let table = [
            ("", true),
            ("a=1", true),
            ("a==1,b", true),
            ("a!=1", false),
            ("c!=1", true),
            ("c", false),
            ("!c", true),
            ("!a", false),
            ("a in (1,2),b=", true),
            ("a notin (1, 2)", false),
            ("c notin (1)", true),
            ("c in (1)", false),
        ];
        for (text, expected) in table {
            assert_eq!(Selector::read(text).map(|selector| selector.matches(value)), Ok(expected), "{text}");
        }
        assert!(Selector::read("a b").is_err());
    }
}
