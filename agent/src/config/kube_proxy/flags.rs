//! kube-proxy's command line (row 44 of the behaviour table): its flags by name, read as its own parser reads them, and
//! the KubeProxyConfiguration that they amount to. Pure.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde_json::{Map, Value, json};

use super::{
    API_VERSION, HEALTHZ_PORT, KIND, METRICS_PORT,
    table::{
        FLAGS, Kind,
        Place::{self, Field, Mode, Nowhere, Task},
    },
};

/// A command line that kube-proxy would not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No flag of kube-proxy's.
    #[error("unknown flag: {0}")]
    Unknown(String),
    /// A flag without what belongs to it.
    #[error("--{0} needs a value")]
    NoValue(&'static str),
    /// A flag with a value that it cannot have.
    #[error("--{flag}: {problem}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A word that is no flag.
    #[error("{0:?} is not a flag, and there are no other arguments")]
    Argument(String),
}

/// The flags that were given, each with its last value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Given(BTreeMap<&'static str, Value>);

/// Reads a command line, without the program's name.
pub(super) fn parse(words: &[String]) -> Result<Given, FlagError> {
    let mut given = Given::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some((flag, kind, value)) = split(word)? else {
            match word.as_str() {
                "--" | "" => continue,
                _ => return Err(FlagError::Argument(word.clone())),
            }
        };
        let value = match value {
            Some(value) => value,
            None if kind == Kind::Bool => "true",
            None => words.next().ok_or(FlagError::NoValue(flag))?,
        };
        let value = read(kind, value).map_err(|problem| FlagError::Value { flag, problem })?;
        match (given.0.get_mut(flag), value) {
            (Some(Value::Array(before)), Value::Array(more)) => before.extend(more),
            (Some(Value::Object(before)), Value::Object(more)) => before.extend(more),
            (_, value) => drop(given.0.insert(flag, value)),
        }
    }
    Ok(given)
}

/// A flag, its kind and its value behind `=`; nothing where the word is no flag.
fn split(word: &str) -> Result<Option<(&'static str, Kind, Option<&str>)>, FlagError> {
    if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        // As all of Kubernetes' components do.
        let name = name.replace('_', "-");
        let found = FLAGS.iter().find(|(flag, ..)| *flag == name);
        let (flag, kind, _) = found.ok_or_else(|| FlagError::Unknown(format!("--{name}")))?;
        return Ok(Some((flag, *kind, value)));
    }
    let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty() && *short != "-") else {
        return Ok(None);
    };
    match short {
        "h" => Ok(Some(("help", Kind::Bool, None))),
        _ => match short.strip_prefix('v') {
            Some("") => Ok(Some(("v", Kind::Int, None))),
            Some(value) => Ok(Some(("v", Kind::Int, Some(value.strip_prefix('=').unwrap_or(value))))),
            None => Err(FlagError::Unknown(word.to_owned())),
        },
    }
}

fn read(kind: Kind, text: &str) -> Result<Value, String> {
    let is_not = |what: &str| format!("{text:?} is not {what}");
    Ok(match kind {
        Kind::Text => json!(text),
        Kind::Bool => match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => json!(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => json!(false),
            _ => return Err(is_not("true or false")),
        },
        Kind::Int => json!(text.parse::<i32>().map_err(|_| is_not("a whole number"))?),
        Kind::Float => json!(text.parse::<f32>().map_err(|_| is_not("a number"))?),
        Kind::Duration => {
            let sound = text == "0" || text.parse::<jiff::SignedDuration>().is_ok();
            if sound { json!(text) } else { return Err(is_not("a length of time such as 30s")) }
        }
        Kind::List => text.split(',').filter(|part| !part.is_empty()).map(|part| json!(part)).collect(),
        Kind::Gates => {
            let gate = |part: &str| match part.trim().split_once('=') {
                Some((name, value)) => Ok((name.trim().to_owned(), read(Kind::Bool, value.trim())?)),
                None => Err(format!("{part:?} is not of the form NAME=true")),
            };
            let gates = text.split(',').filter(|part| !part.is_empty()).map(gate);
            Value::Object(gates.collect::<Result<Map<_, _>, String>>()?)
        }
        Kind::Ip if text.is_empty() || text.parse::<IpAddr>().is_ok() => json!(text),
        Kind::Ip => return Err(is_not("an address")),
        Kind::IpPort => {
            let sound = text.is_empty()
                || text.parse::<IpAddr>().is_ok()
                || text.parse::<std::net::SocketAddr>().is_ok();
            if sound { json!(text) } else { return Err(is_not("an address or address:port")) }
        }
    })
}

impl Given {
    /// A flag that is on.
    pub(super) fn is_on(&self, flag: &str) -> bool {
        self.0.get(flag) == Some(&Value::Bool(true))
    }

    /// A text that is not empty.
    pub(super) fn text(&self, flag: &str) -> Option<&str> {
        self.0.get(flag)?.as_str().filter(|text| !text.is_empty())
    }

    /// A path that is not empty.
    pub(super) fn path(&self, flag: &str) -> Option<PathBuf> {
        self.text(flag).map(PathBuf::from)
    }

    /// Whether a port is given as 0: its server is not wanted.
    pub(super) fn is_no_port(&self, flag: &str) -> bool {
        self.0.get(flag) == Some(&json!(0))
    }

    /// The name of this node's Node. One of blanks is none that there could be.
    pub(super) fn node_name(&self) -> Result<Option<String>, FlagError> {
        let flag = "hostname-override";
        let Some(name) = self.text(flag) else { return Ok(None) };
        match name.trim() {
            "" => Err(FlagError::Value { flag, problem: "is empty".to_owned() }),
            name => Ok(Some(name.to_lowercase())),
        }
    }

    /// The flags among these that have no meaning whatever else is set, with the reason.
    pub(super) fn meaningless(&self) -> Vec<String> {
        let flags = FLAGS.iter().filter(|(flag, ..)| self.0.contains_key(flag));
        let remark = |(flag, _, place): &(&str, Kind, Place)| match place {
            Nowhere(why) => Some(format!("--{flag} has no effect: {why}")),
            _ => None,
        };
        flags.filter_map(remark).collect()
    }

    /// Puts what these flags say about logs into a configuration that was read from a file: nothing else goes before it.
    /// Gives the flags that do not count then.
    pub(super) fn put_before(&self, document: &mut Value) -> Vec<String> {
        let mut left_out = Vec::new();
        for (flag, _, place) in FLAGS {
            let Some(value) = self.0.get(flag) else { continue };
            match place {
                Field(path) if path.starts_with("logging.") => set(document, path, value.clone()),
                Task(_) if !matches!(*flag, "healthz-port" | "metrics-port") => {}
                Nowhere(_) => {}
                _ => left_out.push(format!("--{flag}")),
            }
        }
        left_out
    }

    /// The configuration that the flags alone make, and the flag behind each field that was set.
    pub(super) fn document(&self) -> Document {
        let mut document = Document {
            value: json!({ "apiVersion": API_VERSION, "kind": KIND }),
            origins: Vec::new(),
            remarks: Vec::new(),
        };
        let mode = self.text("proxy-mode").unwrap_or("iptables");
        for (flag, _, place) in FLAGS {
            let Some(value) = self.0.get(flag) else { continue };
            let path = match place {
                Field(path) => (*path).to_owned(),
                // What of the modes' sections has one flag for all: ipvs masquerades by the rules of iptables.
                Mode(_, field @ "masqueradeAll") if mode == "nftables" => format!("nftables.{field}"),
                Mode(_, field @ "masqueradeAll") => format!("iptables.{field}"),
                Mode(section, field) if (*section == "ipvs") == (mode == "ipvs") => format!("{mode}.{field}"),
                Mode(..) => {
                    document.remarks.push(format!("--{flag} has no effect: belongs to another mode"));
                    continue;
                }
                Task(_) | Nowhere(_) => continue,
            };
            set(&mut document.value, &path, value.clone());
            document.origins.push((path, flag));
        }
        for (field, address, flag, usual) in [
            ("healthzBindAddress", "healthz-bind-address", "healthz-port", HEALTHZ_PORT),
            ("metricsBindAddress", "metrics-bind-address", "metrics-port", METRICS_PORT),
        ] {
            let port = self.0.get(flag).and_then(Value::as_i64).filter(|port| *port != 0);
            let plain = self.text(address).and_then(|text| text.parse::<IpAddr>().ok());
            if let Some((port, ip)) = port.filter(|port| *port != i64::from(usual)).zip(plain) {
                let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
                set(&mut document.value, field, json!(format!("{ip}:{port}")));
            }
        }
        document
    }
}

/// A KubeProxyConfiguration that flags make.
pub(super) struct Document {
    /// It.
    pub(super) value: Value,
    origins: Vec<(String, &'static str)>,
    /// Flags that are not in it, and why.
    pub(super) remarks: Vec<String>,
}

impl Document {
    /// Names the flag in the place of the field that a text begins with.
    pub(super) fn by_flag(&self, text: &str) -> String {
        let covers =
            |path: &str| text.strip_prefix(path).is_some_and(|rest| rest.starts_with([':', '.', '[']));
        match self.origins.iter().find(|(path, _)| covers(path)) {
            Some((path, flag)) => format!("--{flag}{}", text.strip_prefix(path.as_str()).unwrap_or(text)),
            None => text.to_owned(),
        }
    }
}

/// Sets a field, and makes the sections that it is in.
fn set(document: &mut Value, path: &str, value: Value) {
    let mut place = document;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(fields) = place else { return };
        place = fields.entry(name).or_insert(Value::Null);
    }
    *place = value;
}
