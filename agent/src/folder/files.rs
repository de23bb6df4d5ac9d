//! Which manifest file says what: last good versions and duplicates. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use sluice_model::{Object, ObjectKey, Service, ServiceKind};

use super::manifest::{Complaint, Entry, Manifest};

/// All manifest files, by name.
///
/// While a file has a mistake in it, the objects that its last version defined and this one does not stay in
/// force: whether they were meant to go cannot be known. Objects that two files define are taken from the
/// file whose name comes first.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<Arc<str>, BTreeMap<ObjectKey, Entry>>,
    owners: BTreeMap<ObjectKey, BTreeSet<Arc<str>>>,
    /// Files that have a mistake in them.
    bad: BTreeSet<Arc<str>>,
}

/// What the author of the manifests should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A mistake in a file.
    Bad {
        /// The file's name.
        file: Arc<str>,
        /// What is wrong.
        complaint: Complaint,
    },
    /// Objects that stay in force because the file that defined them has a mistake.
    Kept {
        /// The file's name.
        file: Arc<str>,
        /// The objects.
        objects: Vec<ObjectKey>,
    },
    /// An object that is defined twice.
    Duplicate {
        /// The object.
        object: ObjectKey,
        /// File and line that hold.
        first: (Arc<str>, u64),
        /// File and line that do not.
        second: (Arc<str>, u64),
    },
    /// A service without a cluster address: nobody allocates one here.
    NoAddress {
        /// The file's name.
        file: Arc<str>,
        /// The service.
        object: ObjectKey,
    },
    /// A kind that is no business of Sluice's.
    Ignored {
        /// The file's name.
        file: Arc<str>,
        /// What it is.
        what: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad { file, complaint } => write!(f, "{file}: {complaint}"),
            Self::Kept { file, objects } => {
                write!(f, "{file}: until it is mended, what it defined before stays in force:")?;
                objects.iter().try_for_each(|object| write!(f, " {}", Title(object)))
            }
            Self::Duplicate { object, first, second } => write!(
                f,
                "{} is defined in {} (line {}) and in {} (line {}): the first holds",
                Title(object),
                first.0,
                first.1,
                second.0,
                second.1
            ),
            Self::NoAddress { file, object } => write!(
                f,
                "{file}: {} has no spec.clusterIP, and without an API server nobody allocates one: it is not served",
                Title(object)
            ),
            Self::Ignored { file, what } => write!(f, "{file}: {what} is none of our business"),
        }
    }
}

/// Kind and name of an object, as people write it.
pub(super) struct Title<'a>(pub(super) &'a ObjectKey);

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ObjectKey::Service(name) => write!(f, "Service {name}"),
            ObjectKey::EndpointSlice(name) => write!(f, "EndpointSlice {name}"),
            ObjectKey::Node(name) => write!(f, "Node {name}"),
            ObjectKey::Pod(name) => write!(f, "Pod {name}"),
            ObjectKey::Namespace(name) => write!(f, "Namespace {name}"),
            ObjectKey::ServiceCidr(name) => write!(f, "ServiceCIDR {name}"),
            ObjectKey::ServiceImport(name) => write!(f, "ServiceImport {name}"),
        }
    }
}

impl Files {
    /// Takes in a file's text; gives the objects that it may have changed.
    pub(super) fn put(&mut self, file: &Arc<str>, text: &str, notes: &mut Vec<Note>) -> BTreeSet<ObjectKey> {
        let Manifest { entries, complaints, ignored } = Manifest::parse(text);
        let mut defined: BTreeMap<ObjectKey, Entry> = BTreeMap::new();
        for entry in entries {
            let object = entry.object.key();
            if let Some(first) = defined.get(&object) {
                let (first, second) = ((file.clone(), first.line), (file.clone(), entry.line));
                notes.push(Note::Duplicate { object, first, second });
            } else {
                if let Object::Service(service) = &entry.object
                    && lacks_address(service)
                {
                    notes.push(Note::NoAddress { file: file.clone(), object: object.clone() });
                }
                defined.insert(object, entry);
            }
        }
        notes.extend(ignored.into_iter().map(|what| Note::Ignored { file: file.clone(), what }));
        let before = self.files.remove(file).unwrap_or_default();
        if complaints.is_empty() {
            self.bad.remove(file);
        } else {
            self.bad.insert(file.clone());
            notes.extend(complaints.into_iter().map(|complaint| Note::Bad { file: file.clone(), complaint }));
            let kept: Vec<_> = before.iter().filter(|(object, _)| !defined.contains_key(object)).collect();
            if !kept.is_empty() {
                let objects = kept.iter().map(|(object, _)| (*object).clone()).collect();
                notes.push(Note::Kept { file: file.clone(), objects });
            }
            let kept: Vec<_> =
                kept.into_iter().map(|(object, entry)| (object.clone(), entry.clone())).collect();
            defined.extend(kept);
        }
        self.replace(file, &before, defined, notes)
    }

    /// Forgets a file; gives the objects that it may have changed.
    pub(super) fn remove(&mut self, file: &Arc<str>) -> BTreeSet<ObjectKey> {
        self.bad.remove(file);
        let before = self.files.remove(file).unwrap_or_default();
        self.replace(file, &before, BTreeMap::new(), &mut Vec::new())
    }

    fn replace(
        &mut self,
        file: &Arc<str>,
        before: &BTreeMap<ObjectKey, Entry>,
        defined: BTreeMap<ObjectKey, Entry>,
        notes: &mut Vec<Note>,
    ) -> BTreeSet<ObjectKey> {
        for object in before.keys() {
            if let Some(owners) = self.owners.get_mut(object) {
                owners.remove(file);
                if owners.is_empty() {
                    self.owners.remove(object);
                }
            }
        }
        for (object, entry) in &defined {
            let owners = self.owners.entry(object.clone()).or_default();
            for other in owners.iter() {
                let line = self.files.get(other).and_then(|f| f.get(object)).map_or(0, |entry| entry.line);
                let (mine, theirs) = ((file.clone(), entry.line), (other.clone(), line));
                let (first, second) = if file < other { (mine, theirs) } else { (theirs, mine) };
                notes.push(Note::Duplicate { object: object.clone(), first, second });
            }
            owners.insert(file.clone());
        }
        let changed = before.keys().chain(defined.keys()).cloned().collect();
        if !defined.is_empty() {
            self.files.insert(file.clone(), defined);
        }
        changed
    }

    /// What holds for an object.
    pub(super) fn get(&self, object: &ObjectKey) -> Option<&Entry> {
        let file = self.owners.get(object)?.first()?;
        self.files.get(file)?.get(object)
    }

    /// How many files have a mistake in them.
    pub(super) fn bad(&self) -> usize {
        self.bad.len()
    }
}

/// Whether the service needs a cluster address and has none.
fn lacks_address(service: &Service) -> bool {
    service.cluster_ips.is_empty() && !service.headless && service.kind != ServiceKind::ExternalName
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(names: &[&str]) -> String {
        let document = |name: &&str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        names.iter().map(document).collect::<Vec<_>>().join("---\n")
    }

    fn held(files: &Files) -> Vec<String> {
        files.owners.keys().map(|key| Title(key).to_string().replace("Namespace ", "")).collect()
    }

    #[test]
    fn a_bad_version_changes_what_is_good_in_it_and_takes_nothing_away() {
        let (mut files, mut notes) = (Files::default(), Vec::new());
        let file: Arc<str> = "a.yaml".into();
        files.put(&file, &namespaces(&["one", "two"]), &mut notes);
        assert_eq!((held(&files), notes.len()), (vec!["one".into(), "two".into()], 0));

        let bad = namespaces(&["one", "three"]) + "---\nkind: [\n";
        files.put(&file, &bad, &mut notes);
        assert_eq!(held(&files), ["one", "three", "two"]);
        assert_eq!(files.bad(), 1);
        let said: Vec<_> = notes.drain(..).map(|note| note.to_string()).collect();
        assert!(said[0].starts_with("a.yaml: line 9: not valid YAML"), "{said:?}");
        assert_eq!(
            said[1],
            "a.yaml: until it is mended, what it defined before stays in force: Namespace two"
        );

        files.put(&file, &namespaces(&["three"]), &mut notes);
        assert_eq!((held(&files), notes.len(), files.bad()), (vec!["three".into()], 0, 0));
        files.remove(&file);
        assert!(held(&files).is_empty());
    }

    #[test]
    fn of_two_files_the_first_by_name_holds_whatever_the_order_of_reading() {
        let (a, b): (Arc<str>, Arc<str>) = ("a.yaml".into(), "b.yaml".into());
        for order in [[&a, &b], [&b, &a]] {
            let (mut files, mut notes) = (Files::default(), Vec::new());
            for file in order {
                let lines = if *file == a { "\n\n" } else { "" };
                files.put(file, &(lines.to_owned() + &namespaces(&["one"])), &mut notes);
            }
            let object = ObjectKey::Namespace("one".into());
            assert_eq!(files.get(&object).unwrap().line, 3);
            let said: Vec<_> = notes.drain(..).map(|note| note.to_string()).collect();
            let expected =
                "Namespace one is defined in a.yaml (line 3) and in b.yaml (line 1): the first holds";
            assert_eq!(said, [expected]);
            // The first goes: the second takes its place.
            assert!(files.remove(&a).contains(&object));
            assert_eq!(files.get(&object).unwrap().line, 1);
        }
    }

    #[test]
    fn twice_in_one_file_is_told() {
        let (mut files, mut notes) = (Files::default(), Vec::new());
        files.put(&"a.yaml".into(), &namespaces(&["one", "one"]), &mut notes);
        assert!(notes[0].to_string().contains("in a.yaml (line 1) and in a.yaml (line 5)"), "{}", notes[0]);
    }
}
