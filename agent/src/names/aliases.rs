//! Names that container runtimes give to pods (the capability `aliases` of CNI): each pod answers to them on its node,
//! alone and below the name of its network. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluice_cni::store::{Attachment, State};

/// Addresses by name.
pub(super) type Aliases = BTreeMap<String, BTreeSet<IpAddr>>;

/// The names of the pods that are attached. An alias is one label: one of several could stand for a name of the world.
pub fn aliases(attachments: &[Attachment]) -> Aliases {
    let mut aliases = Aliases::new();
    for attachment in attachments.iter().filter(|attachment| attachment.state == State::Ready) {
        for alias in attachment.aliases.iter().map(|alias| alias.trim_end_matches('.')) {
            if alias.is_empty() || alias.contains('.') {
                continue;
            }
            for name in
                [alias.to_ascii_lowercase(), format!("{alias}.{}", attachment.network).to_ascii_lowercase()]
            {
                let addresses = attachment.addresses.iter().map(ipnet::IpNet::addr);
                aliases.entry(name).or_default().extend(addresses);
            }
        }
    }
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::attachment;

    #[test]
    fn pods_answer_to_their_aliases_alone_and_in_their_network() {
        let with = |state, address: &str, aliases: &[&str]| Attachment {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..attachment(state, "sluice00000001", address)
        };
        let attachments = [
            with(State::Ready, "10.1.0.2/24", &["DB", "www.example.org", ""]),
            with(State::Ready, "fd00::3/64", &["db.", "cache"]),
            with(State::Adding, "10.1.0.4/24", &["db"]),
        ];
        let told: Vec<String> = aliases(&attachments)
            .iter()
            .map(|(name, ips)| {
                format!("{name} {}", ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            })
            .collect();
        assert_eq!(
            told,
            ["cache fd00::3", "cache.sluice fd00::3", "db 10.1.0.2 fd00::3", "db.sluice 10.1.0.2 fd00::3"]
        );
    }
}
