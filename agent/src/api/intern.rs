//! Texts that many objects have in common (namespaces, names of nodes, zones and ports), in memory once.

use std::{collections::HashSet, sync::Arc};

use sluice_model::{Object, ObjectName};

/// The texts in use.
#[derive(Debug, Default)]
pub(super) struct Interner {
    texts: HashSet<Arc<str>>,
    /// How many there were when those that nobody uses were last thrown out.
    used: usize,
}

impl Interner {
    /// Puts the texts that are known in the place of the object's own.
    pub(super) fn share(&mut self, object: &mut Object) {
        match object {
            Object::Service(service) => {
                self.namespace(&mut service.name);
                service.ports.iter_mut().for_each(|port| self.text(&mut port.name));
            }
            Object::EndpointSlice(slice) => {
                self.namespace(&mut slice.name);
                slice.service.iter_mut().for_each(|service| self.namespace(service));
                if let Some(imported) = &mut slice.imported {
                    self.namespace(&mut imported.service);
                    self.text(&mut imported.cluster);
                }
                slice.ports.iter_mut().for_each(|port| self.text(&mut port.name));
                for endpoint in &mut slice.endpoints {
                    endpoint.node.iter_mut().for_each(|node| self.text(node));
                    endpoint.zone.iter_mut().for_each(|zone| self.text(zone));
                    endpoint.hints.zones.iter_mut().for_each(|zone| self.text(zone));
                    endpoint.hints.nodes.iter_mut().for_each(|node| self.text(node));
                    endpoint.pod.iter_mut().for_each(|pod| self.namespace(pod));
                }
            }
            Object::Node(node) => node.zone.iter_mut().for_each(|zone| self.text(zone)),
            Object::Pod(pod) => {
                self.namespace(&mut pod.name);
                pod.node.iter_mut().for_each(|node| self.text(node));
            }
            Object::ServiceImport(import) => {
                self.namespace(&mut import.name);
                import.ports.iter_mut().for_each(|port| self.text(&mut port.name));
            }
            Object::Namespace(_) | Object::ServiceCidr(_) => {}
        }
    }

    fn namespace(&mut self, name: &mut ObjectName) {
        self.text(&mut name.namespace);
    }

    fn text(&mut self, text: &mut Arc<str>) {
        match self.texts.get(&**text) {
            Some(known) => *text = known.clone(),
            None => {
                if self.texts.len() > 2 * self.used + 64 {
                    self.texts.retain(|text| Arc::strong_count(text) > 1);
                    self.used = self.texts.len();
                }
                self.texts.insert(text.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_model::Service;

    #[test]
    fn texts_are_shared_while_they_are_used() {
        let mut interner = Interner::default();
        let mut make = |namespace: &str, name: &str| {
            let mut object = Object::Service(Service::new(ObjectName::new(namespace, name)));
            interner.share(&mut object);
            object
        };
        let objects = [make("shop", "a"), make("shop", "b")];
        let [Object::Service(a), Object::Service(b)] = &objects else { panic!("services") };
        assert!(Arc::ptr_eq(&a.name.namespace, &b.name.namespace));
        for number in 0..10_000 {
            make(&format!("n{number}"), "x");
        }
        assert!(interner.texts.len() < 200, "{}", interner.texts.len());
        assert!(interner.texts.contains("shop"));
    }
}
