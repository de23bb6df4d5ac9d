//! Domains whose names are in master files, for what the cluster does not know.
//!
//! A file is read as a whole into an immutable value, its records encoded as they go into answers, and swapped in. One that
//! cannot be read leaves what was there.

mod find;
mod kept;
mod transfer;
mod write;
mod zone;

use std::sync::Arc;

use tokio::task::JoinSet;

use self::kept::Kept;
pub(crate) use self::{transfer::records, write::Told, zone::FileZone};
use crate::{
    ConfigError, ZoneFile,
    name::WireName,
    query::{Query, QueryName},
    reply::Reply,
    wire::Rcode,
};

/// The domains of one server block that are in files.
#[derive(Debug, Default)]
pub(crate) struct Files(
    /// The longest domain first.
    Vec<Held>,
);

#[derive(Debug)]
struct Held {
    origin: WireName,
    kept: Arc<Kept>,
    fallthrough: Vec<WireName>,
}

impl Held {
    /// Whether others are asked for a name that does not exist.
    fn falls_through(&self, name: &QueryName) -> bool {
        self.fallthrough.iter().any(|zone| name.labels_before(zone.as_bytes()).is_some())
    }
}

impl Files {
    /// Reads the files. One that is not there yet may come; one that is wrong is an error.
    pub(crate) fn new(config: &[ZoneFile]) -> Result<Self, ConfigError> {
        let name = |text: &String| WireName::parse(text).ok_or_else(|| ConfigError::Zone(text.clone()));
        let mut held: Vec<Held> = Vec::new();
        for file in config {
            let fallthrough = match &file.fallthrough {
                None => Vec::new(),
                Some(zones) if zones.is_empty() => vec![name(&".".to_owned())?],
                Some(zones) => zones.iter().map(name).collect::<Result<_, _>>()?,
            };
            if file.zones.is_empty() {
                return Err(ConfigError::NoZone("file"));
            }
            for zone in &file.zones {
                let origin = name(zone)?;
                let kept = Arc::new(Kept::new(file, &origin)?);
                if held.iter().any(|held| held.origin == origin) {
                    return Err(ConfigError::Twice(origin.to_string()));
                }
                held.push(Held { origin, kept, fallthrough: fallthrough.clone() });
            }
        }
        held.sort_by_key(|held| std::cmp::Reverse(held.origin.as_bytes().len()));
        Ok(Self(held))
    }

    fn of(&self, name: &QueryName) -> Option<&Held> {
        self.0.iter().find(|held| name.labels_before(held.origin.as_bytes()).is_some())
    }

    /// Whether names like this one are in files.
    pub(crate) fn hold(&self, name: &QueryName) -> bool {
        self.of(name).is_some()
    }

    /// The domain of exactly this name, as it is now: none inside where it has never been read.
    pub(crate) fn whole(&self, name: &QueryName) -> Option<Option<Arc<FileZone>>> {
        let held = self.0.iter().find(|held| held.origin.as_bytes() == name.as_bytes())?;
        Some(held.kept.zone.load_full())
    }

    /// Whether a name is delegated to others.
    pub(crate) fn is_cut(&self, name: &QueryName) -> bool {
        let zone = self.of(name).and_then(|held| held.kept.zone.load_full());
        zone.is_some_and(|zone| zone.is_cut(name))
    }

    /// Whether what is said of a name and a type is the files' to say.
    pub(crate) fn serve(&self, name: &QueryName, qtype: u16) -> bool {
        let Some(held) = self.of(name) else { return false };
        let zone = held.kept.zone.load();
        zone.as_ref()
            .is_some_and(|zone| zone.serves(name, qtype) && !(zone.denies(name) && held.falls_through(name)))
    }

    /// Writes what the files say to a query; `None` where others are to be asked.
    pub(crate) fn write(&self, query: &Query<'_>, turn: u32, reply: &mut Reply<'_>) -> Option<Told> {
        let held = self.of(&query.name)?;
        let zone = held.kept.zone.load();
        let Some(zone) = &*zone else { return Some(Told::Complete(Rcode::ServFail)) };
        if zone.denies(&query.name) && held.falls_through(&query.name) {
            return None;
        }
        Some(zone.write(query, turn, reply))
    }

    /// Keeps up with the files, for ever.
    pub(crate) async fn watch(&self) {
        let mut watches = JoinSet::new();
        for kept in self.0.iter().map(|held| held.kept.clone()) {
            watches.spawn(async move { kept.watch().await });
        }
        while watches.join_next().await.is_some() {}
    }
}
