//! Names with addresses, as in `/etc/hosts`.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use prometheus::{Gauge, IntGauge};

use super::{domains, is_among};
use crate::{
    ConfigError, Hosts,
    answer::push_data,
    metrics::RuleMetrics,
    name::{WireName, reverse_address},
    query::{Query, QueryName},
    records::{address_type, push_address, push_head},
    reply::{Reply, Section},
    wire::{QUESTION_POINTER, Rcode, rtype},
};

/// The names and addresses of the lines and of the file.
#[derive(Debug)]
pub(super) struct HostTable {
    file: Option<PathBuf>,
    /// What the file said last.
    last: Mutex<Option<String>>,
    inline: Table,
    table: ArcSwap<Table>,
    zones: Vec<WireName>,
    ttl: u32,
    reverse: bool,
    fallthrough: Option<Vec<WireName>>,
    passes_types: bool,
    reload: Duration,
    entries: IntGauge,
    read: Gauge,
}

#[derive(Clone, Debug, Default)]
struct Table {
    addresses: HashMap<Arc<[u8]>, Vec<IpAddr>>,
    names: HashMap<IpAddr, Vec<WireName>>,
}

impl Table {
    /// Adds the names of a line, an address and names; what follows `#` is a comment.
    fn add(&mut self, line: &str) -> Option<()> {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next() else { return Some(()) };
        let address: IpAddr = address.parse().ok()?;
        for word in words {
            let name = WireName::parse(word)?;
            let addresses = self.addresses.entry(name.as_bytes().into()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            let names = self.names.entry(address).or_default();
            if !word.starts_with('*') && !names.contains(&name) {
                names.push(name);
            }
        }
        Some(())
    }

    /// How many addresses names have, and names addresses.
    fn count(&self) -> i64 {
        let addresses: usize = self.addresses.values().map(Vec::len).sum();
        (addresses + self.names.values().map(Vec::len).sum::<usize>()) as i64
    }
}

impl HostTable {
    pub(super) fn new(config: &Hosts, metrics: &RuleMetrics) -> Result<Self, ConfigError> {
        let mut inline = Table::default();
        for line in &config.lines {
            inline.add(line).ok_or_else(|| ConfigError::Hosts(line.clone()))?;
        }
        metrics.entries.add(inline.count());
        let table = Self {
            file: config.file.clone(),
            last: Mutex::new(None),
            table: ArcSwap::from_pointee(inline.clone()),
            inline,
            zones: domains(&config.zones)?,
            ttl: config.ttl,
            reverse: config.reverse,
            fallthrough: config.fallthrough.as_ref().map(|zones| domains(zones)).transpose()?,
            passes_types: config.fallthrough_unsupported,
            reload: config.reload,
            entries: metrics.entries.clone(),
            read: metrics.read.clone(),
        };
        table.read();
        Ok(table)
    }

    /// Reads the file, if there is one and it is not as it was. A file that is not there has no names.
    fn read(&self) {
        let Some(file) = &self.file else { return };
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| {
            tracing::debug!(file = %file.display(), %error, "no hosts file");
            String::new()
        });
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() == Some(&text) {
            return;
        }
        let mut table = self.inline.clone();
        for line in text.lines() {
            if table.add(line).is_none() {
                tracing::warn!(file = %file.display(), line, "not an address and names");
            }
        }
        self.entries.add(table.count() - self.table.load().count());
        self.table.store(Arc::new(table));
        let written = std::fs::metadata(file).and_then(|file| file.modified()).ok();
        if let Some(since) = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok()) {
            self.read.set(since.as_secs_f64());
        }
        *last = Some(text);
    }

    /// Keeps up with the file, for ever.
    pub(super) async fn watch(&self) {
        if self.reload.is_zero() {
            return std::future::pending().await;
        }
        let mut tick = tokio::time::interval(self.reload);
        loop {
            tick.tick().await;
            self.read();
        }
    }

    fn falls_through(&self, name: &QueryName) -> bool {
        self.fallthrough.as_ref().is_some_and(|zones| is_among(name, zones))
    }

    /// Writes what the table says; `None` where others are to be asked.
    pub(super) fn write(&self, query: &Query<'_>, turn: u32, reply: &mut Reply<'_>) -> Option<Rcode> {
        let name = &query.name;
        if !is_among(name, &self.zones) {
            return None;
        }
        let table = self.table.load();
        if query.qtype == rtype::PTR && self.reverse {
            let names = reverse_address(name.rev_labels()).and_then(|address| table.names.get(&address));
            if let Some(names) = names.filter(|names| !names.is_empty()) {
                for name in names {
                    reply.record(Section::Answer, |out| {
                        push_head(out, QUESTION_POINTER, rtype::PTR, self.ttl);
                        push_data(out, |out| out.extend(name.as_bytes()));
                    });
                }
                return Some(Rcode::NoError);
            }
        }
        let wildcard = (name.count() > 0).then(|| [b"\x01*", name.from(1)].concat());
        let exact = table.addresses.get(name.as_bytes());
        let Some(addresses) = exact.or_else(|| table.addresses.get(&*wildcard?)) else {
            // A name above one that is there exists; that is for the others to say.
            return (!self.falls_through(name)).then_some(Rcode::NxDomain);
        };
        if self.passes_types && !matches!(query.qtype, rtype::A | rtype::AAAA) && self.falls_through(name) {
            return None;
        }
        let of_type: Vec<_> = addresses.iter().filter(|a| address_type(**a) == query.qtype).collect();
        let first = turn as usize % of_type.len().max(1);
        for address in of_type[first..].iter().chain(&of_type[..first]) {
            reply.record(Section::Answer, |out| push_address(out, QUESTION_POINTER, **address, self.ttl));
        }
        Some(Rcode::NoError)
    }
}

impl Drop for HostTable {
    fn drop(&mut self) {
        self.entries.sub(self.table.load().count());
    }
}
