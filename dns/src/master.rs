//! Master files: a zone as a text (RFC 1035, 5), into records as they stand in messages.
//!
//! `$ORIGIN`, `$TTL`, `$INCLUDE`, relative to the file that it stands in, and `$GENERATE` are taken; records of unknown types in the
//! form of RFC 3597. What is wrong is told with file and line.

mod data;
mod entry;
mod generate;
mod text;

use std::path::{Path, PathBuf};

use self::{
    entry::{Entry, entries},
    text::{Word, name, number},
};
use crate::name::WireName;

/// Files within files.
const MAX_DEPTH: usize = 8;
/// Time to live where a file says none, as with CoreDNS.
const USUAL_TTL: u32 = 3600;
/// The longest time to live (RFC 2181, 8).
const MAX_TTL: u32 = i32::MAX as u32;

/// A record of a master file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MasterRecord {
    /// Its owner.
    pub(crate) name: WireName,
    /// Its type.
    pub(crate) rtype: u16,
    /// Its time to live.
    pub(crate) ttl: u32,
    /// Its data, no name in it compressed.
    pub(crate) data: Vec<u8>,
    /// The file and the line where it is, for what is wrong with it beside others.
    pub(crate) at: Place,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: std::sync::Arc<Path>,
    /// From 1.
    pub(crate) line: usize,
}

/// What is wrong with a master file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: line {line}: {problem}", file.display())]
pub struct MasterError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl MasterError {
    pub(crate) fn at(place: &Place, problem: impl Into<String>) -> Self {
        Self { file: place.file.to_path_buf(), line: place.line, problem: problem.into() }
    }
}

/// Reads files.
pub(crate) type Load<'l> = &'l mut dyn FnMut(&Path) -> std::io::Result<Vec<u8>>;

/// What holds from line to line.
struct State {
    origin: WireName,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
    owner: Option<WireName>,
}

/// Reads the text of a file; `load` reads what it includes.
pub(crate) fn read(
    text: &[u8],
    file: &Path,
    origin: &WireName,
    load: Load<'_>,
) -> Result<Vec<MasterRecord>, MasterError> {
    let mut records = Vec::new();
    let mut state = State { origin: origin.clone(), default_ttl: None, last_ttl: None, owner: None };
    read_into(text, file.into(), &mut state, &mut records, load, 0)?;
    Ok(records)
}

fn read_into(
    text: &[u8],
    file: std::sync::Arc<Path>,
    state: &mut State,
    records: &mut Vec<MasterRecord>,
    load: Load<'_>,
    depth: usize,
) -> Result<(), MasterError> {
    for entry in entries(text) {
        let entry =
            entry.map_err(|(line, problem)| MasterError::at(&Place { file: file.clone(), line }, problem))?;
        let at = Place { file: file.clone(), line: entry.line };
        let wrong = |problem: String| MasterError::at(&at, problem);
        let directive = entry.words.first().filter(|word| !entry.is_indented && word.text.starts_with(b"$"));
        let Some(directive) = directive else {
            records.extend(record(&entry, &at, state).map_err(wrong)?);
            continue;
        };
        let words = &entry.words[1..];
        match (directive.text.to_ascii_uppercase().as_slice(), words) {
            (b"$ORIGIN", [word]) => state.origin = name(word, &state.origin).map_err(wrong)?,
            (b"$TTL", [word]) => {
                let ttl = number(word).filter(|ttl| *ttl <= MAX_TTL);
                state.default_ttl = Some(ttl.ok_or_else(|| wrong(format!("{word} is not a time to live")))?);
            }
            (b"$INCLUDE", [path, rest @ ..]) if rest.len() <= 1 => {
                if depth == MAX_DEPTH {
                    return Err(wrong("too many files within files".to_owned()));
                }
                let path = path.decoded().map_err(wrong)?;
                let path =
                    String::from_utf8(path).map_err(|_| wrong("the file's name is not UTF-8".to_owned()))?;
                let path = file.parent().unwrap_or_else(|| Path::new("")).join(path);
                let inner = load(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                let origin = match rest {
                    [word] => name(word, &state.origin).map_err(wrong)?,
                    _ => state.origin.clone(),
                };
                // What an included file sets, ends with it (RFC 1035, 5.1).
                let outer = std::mem::replace(&mut state.origin, origin);
                let owner = state.owner.clone();
                read_into(&inner, path.into(), state, records, load, depth + 1)?;
                (state.origin, state.owner) = (outer, owner);
            }
            (b"$GENERATE", _) => {
                for entry in generate::generate(&entry).map_err(wrong)? {
                    records.extend(record(&entry, &at, state).map_err(wrong)?);
                }
            }
            (b"$ORIGIN" | b"$TTL", _) => return Err(wrong(format!("{directive} takes one word"))),
            (b"$INCLUDE", _) => return Err(wrong("$INCLUDE takes a file and a domain".to_owned())),
            _ => return Err(wrong(format!("{directive} is not supported"))),
        }
    }
    Ok(())
}

/// The record of an entry; none where the line says nothing but an owner.
fn record(entry: &Entry, at: &Place, state: &mut State) -> Result<Option<MasterRecord>, String> {
    let mut words = entry.words.as_slice();
    if !entry.is_indented {
        let Some((owner, rest)) = words.split_first() else { return Ok(None) };
        state.owner = Some(name(owner, &state.origin)?);
        words = rest;
    }
    if words.is_empty() {
        return Ok(None);
    }
    let owner = state.owner.clone().ok_or("a record without an owner before it")?;
    let mut ttl = None;
    let mut has_class = false;
    let rtype = loop {
        let (word, rest) = words.split_first().ok_or("a type is expected")?;
        words = rest;
        match class(word) {
            Some(true) if !has_class => has_class = true,
            Some(false) => return Err(format!("the class {word} is not served")),
            _ => match number(word).filter(|_| ttl.is_none()) {
                Some(seconds) if seconds <= MAX_TTL => ttl = Some(seconds),
                Some(_) => return Err(format!("{word} is not a time to live")),
                None => break data::rtype(word).ok_or_else(|| format!("{word} is not a record type"))?,
            },
        }
    };
    let data = data::data(rtype, words, &state.origin)?;
    state.last_ttl = ttl.or(state.last_ttl);
    let ttl = ttl.or(state.default_ttl).or(state.last_ttl).unwrap_or(USUAL_TTL);
    Ok(Some(MasterRecord { name: owner, rtype, ttl, data, at: at.clone() }))
}

/// Whether a word is a class, and the one that is served.
fn class(word: &Word) -> Option<bool> {
    match word.text.to_ascii_uppercase().as_slice() {
        b"IN" | b"CLASS1" => Some(true),
        b"CH" | b"HS" | b"CS" => Some(false),
        _ => None,
    }
}
