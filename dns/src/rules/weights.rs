//! How often each of several addresses comes first, from a file.
//!
//! ```text
//! # A name, and its addresses with their weights.
//! www.example.org
//! 192.0.2.1 3
//! 2001:db8::1 1
//! ```

use std::{
    collections::HashMap,
    future::pending,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::{WeightFile, name::WireName};

/// Weights by name (wire form, lower case) and address.
type Table = HashMap<Box<[u8]>, HashMap<IpAddr, u8>>;

/// The weights of a file.
#[derive(Debug)]
pub(super) struct Weights {
    config: WeightFile,
    /// What the file said last, good or bad; none before it could be read.
    last: Mutex<Option<String>>,
    table: ArcSwap<Table>,
}

/// A line that is none of a file of weights.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
struct BadLine {
    /// From 1.
    line: usize,
    problem: String,
}

impl Weights {
    /// Those of a file that is yet to be read: until it is, and is good, all addresses weigh the same.
    pub(super) fn new(config: &WeightFile) -> Self {
        Self { config: config.clone(), last: Mutex::default(), table: ArcSwap::default() }
    }

    /// Reads the file and keeps up with it, for ever.
    pub(super) async fn watch(&self) {
        self.read();
        if self.config.reload.is_zero() {
            return pending().await;
        }
        let mut tick = tokio::time::interval(self.config.reload);
        loop {
            tick.tick().await;
            self.read();
        }
    }

    /// Takes in what the file says, if that is new and good.
    fn read(&self) {
        let file = self.config.file.display();
        let text = std::fs::read_to_string(&self.config.file);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%file, %error, "weights cannot be read; those before stay in force");
                return;
            }
        };
        if last.as_ref() == Some(&text) {
            return;
        }
        match parse(&text) {
            Ok(table) => {
                tracing::info!(%file, names = table.len(), "weights of addresses");
                self.table.store(Arc::new(table));
            }
            Err(error) => tracing::error!("{file}: {error}; the weights before stay in force"),
        }
        *last = Some(text);
    }

    /// The weight of an address of a name; the name in wire form and lower case.
    pub(super) fn of(&self, name: &[u8], address: IpAddr) -> u32 {
        let table = self.table.load();
        table.get(name).and_then(|addresses| addresses.get(&address)).map_or(1, |weight| u32::from(*weight))
    }
}

fn parse(text: &str) -> Result<Table, BadLine> {
    let mut table = Table::new();
    let mut current: Option<&mut HashMap<IpAddr, u8>> = None;
    for (number, line) in text.lines().enumerate() {
        let bad = |problem: String| BadLine { line: number + 1, problem };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            [word] if word.parse::<IpAddr>().is_ok() => {
                return Err(bad(format!("{word:?} has no weight")));
            }
            [word] => {
                let name = WireName::parse(word).ok_or_else(|| bad(format!("{word:?} is not a name")))?;
                current = Some(table.entry(name.as_bytes().into()).or_default());
            }
            [address, weight] => {
                let ip = address.parse().map_err(|_| bad(format!("{address:?} is not an address")))?;
                let number = weight.parse().ok().filter(|weight| *weight > 0);
                let number =
                    number.ok_or_else(|| bad(format!("{weight:?} is not a weight from 1 to 255")))?;
                let of_name =
                    current.as_mut().ok_or_else(|| bad("no name before the first address".to_owned()))?;
                of_name.insert(ip, number);
            }
            _ => return Err(bad("a name, or an address and its weight, are expected".to_owned())),
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_have_addresses_with_weights() {
        let text = "# weights\n\n www.Example.org.\n192.0.2.1 3\n\t2001:db8::1   255 \nother.test\n192.0.2.1 1\nwww.example.org\n192.0.2.2 9\n";
        let table = parse(text).unwrap();
        let of = |name: &str| {
            let mut all: Vec<_> = table[WireName::parse(name).unwrap().as_bytes()]
                .iter()
                .map(|(ip, weight)| format!("{ip} {weight}"))
                .collect();
            all.sort();
            all
        };
        assert_eq!(of("www.example.org"), ["192.0.2.1 3", "192.0.2.2 9", "2001:db8::1 255"]);
        assert_eq!(of("other.test"), ["192.0.2.1 1"]);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, told) in [
            ("a.test\n192.0.2.1\n", "line 2: \"192.0.2.1\" has no weight"),
            ("192.0.2.1 3\n", "line 1: no name before the first address"),
            ("a.test\n\n192.0.2 3\n", "line 3: \"192.0.2\" is not an address"),
            ("a.test\n192.0.2.1 0\n", "line 2: \"0\" is not a weight from 1 to 255"),
            ("a.test\n192.0.2.1 256\n", "line 2: \"256\" is not a weight from 1 to 255"),
            ("a..test\n", "line 1: \"a..test\" is not a name"),
            ("a.test\n192.0.2.1 3 4\n", "line 2: a name, or an address and its weight, are expected"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn a_bad_file_leaves_the_weights_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let weights = Weights::new(&WeightFile { file: file.clone(), reload: Duration::ZERO });
        let name = WireName::parse("a.test").unwrap();
        let after = |text: &str| {
            std::fs::write(&file, text).unwrap();
            weights.read();
            weights.of(name.as_bytes(), address)
        };
        assert_eq!(after("a.test\n192.0.2.1 7"), 7);
        assert_eq!(after("a.test\n192.0.2.1 zero"), 7);
        assert_eq!(after("a.test\n192.0.2.1 2"), 2);
        std::fs::remove_file(folder.path().join("weights")).unwrap();
        weights.read();
        assert_eq!(weights.of(name.as_bytes(), address), 2);
        assert_eq!(weights.of(b"\x05other\0", address), 1);
    }
}
