//! What the runtime says in the environment.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use crate::{
    error::{Code, Error, Result},
    store::PodName,
};

/// Where the environment is read from: the process's, or a test's.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The attachment that ADD, DEL and CHECK are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    /// Where the container's namespace is; DEL may come without.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) args: Args,
}

/// What `CNI_ARGS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) pod: Option<PodName>,
    /// `IP`: addresses that the attachment must have, with commas between.
    pub(crate) addresses: Vec<IpAddr>,
    /// `MAC`: the link-layer address that it must have.
    pub(crate) mac: Option<String>,
}

impl Target {
    /// Reads it, naming every variable that is missing or wrong.
    pub(crate) fn read(lookup: Lookup<'_>, needs_netns: bool) -> Result<Self> {
        let get = |name| lookup(name).filter(|value| !value.is_empty());
        let container_id = get("CNI_CONTAINERID");
        let ifname = get("CNI_IFNAME");
        let netns = get("CNI_NETNS");
        let missing: Vec<_> = [
            ("CNI_CONTAINERID", container_id.is_none()),
            ("CNI_NETNS", netns.is_none() && needs_netns),
            ("CNI_IFNAME", ifname.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        let (Some(container_id), Some(ifname), true) = (container_id, ifname, missing.is_empty()) else {
            let msg = format!("required environment variables are missing: {}", missing.join(", "));
            return Err(Error::new(Code::InvalidEnvironment, msg));
        };
        check_container_id(&container_id)?;
        check_ifname(&ifname)?;
        let args = Args::parse(&get("CNI_ARGS").unwrap_or_default())?;
        Ok(Self { container_id, ifname, netns: netns.map(PathBuf::from), args })
    }
}

fn invalid(name: &str, value: &str, why: &str) -> Error {
    Error::new(Code::InvalidEnvironment, format!("{name}={value:?} {why}"))
}

fn check_container_id(id: &str) -> Result<()> {
    if !is_name(id) {
        let why = "must start with a letter or digit and hold only these, '_', '.' and '-'";
        return Err(invalid("CNI_CONTAINERID", id, why));
    }
    // It becomes part of a file's name.
    if id.len() > 200 {
        return Err(invalid("CNI_CONTAINERID", id, "is longer than 200 bytes"));
    }
    Ok(())
}

/// Whether a text is what the specification allows for container ids and network names.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The kernel's rules for names of devices, which are the specification's too.
fn check_ifname(name: &str) -> Result<()> {
    let why = if name.len() > 15 {
        "is longer than 15 bytes"
    } else if matches!(name, "." | "..")
        || name.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace())
    {
        "is not a name that a device can have"
    } else {
        return Ok(());
    };
    Err(invalid("CNI_IFNAME", name, why))
}

impl Args {
    /// Parses `KEY=value;KEY=value`. Keys that we do not know are an error unless `IgnoreUnknown` is true.
    fn parse(text: &str) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(invalid(
                    "CNI_ARGS",
                    text,
                    &format!("has a part that is not KEY=value: {pair:?}"),
                ));
            };
            pairs.insert(key, value);
        }
        let ignore_unknown = match pairs.remove("IgnoreUnknown") {
            None | Some("") => false,
            Some(value) => is_true(value).ok_or_else(|| {
                invalid("CNI_ARGS", text, &format!("has IgnoreUnknown={value:?}, not true or false"))
            })?,
        };
        let mut take = |key| pairs.remove(key).filter(|value| !value.is_empty()).map(str::to_owned);
        let (namespace, name, uid) = (take("K8S_POD_NAMESPACE"), take("K8S_POD_NAME"), take("K8S_POD_UID"));
        take("K8S_POD_INFRA_CONTAINER_ID");
        let mac = take("MAC");
        let mut addresses = Vec::new();
        for address in take("IP").iter().flat_map(|list| list.split(',')) {
            // With or without the length of the network's prefix, which is ours to know.
            let bare = address.split('/').next().unwrap_or(address);
            let parsed = bare.trim().parse().map_err(|_| {
                invalid("CNI_ARGS", text, &format!("has IP={address:?}, which is not an address"))
            })?;
            addresses.push(parsed);
        }
        if !pairs.is_empty() && !ignore_unknown {
            let keys = pairs.into_keys().collect::<Vec<_>>().join(", ");
            return Err(invalid(
                "CNI_ARGS",
                text,
                &format!("has unknown keys, and no IgnoreUnknown=1: {keys}"),
            ));
        }
        let pod = namespace.zip(name).map(|(namespace, name)| PodName { namespace, name, uid });
        Ok(Self { pod, addresses, mac })
    }
}

fn is_true(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" => Some(true),
        "0" | "false" | "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Target> {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Target::read(&|name| map.get(name).cloned(), true)
    }

    const GOOD: [(&str, &str); 3] = [("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];

    #[test]
    fn all_that_is_missing_is_named() {
        let error = read(&[("CNI_NETNS", "/n")]).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert_eq!(error.msg, "required environment variables are missing: CNI_CONTAINERID, CNI_IFNAME");
        assert!(
            Target::read(
                &|name| GOOD
                    .iter()
                    .find(|(k, _)| *k == name && name != "CNI_NETNS")
                    .map(|(_, v)| (*v).to_owned()),
                false
            )
            .is_ok()
        );
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for (name, value) in [
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", "-x"),
            ("CNI_IFNAME", "a-name-too-long-"),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", "a:b"),
        ] {
            let pairs: Vec<_> = GOOD.iter().map(|(k, v)| (*k, if *k == name { value } else { *v })).collect();
            let error = read(&pairs).unwrap_err();
            assert!(error.msg.starts_with(name), "{}", error.msg);
        }
    }

    #[test]
    fn the_kubelets_arguments_name_the_pod() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u;X=y";
        let pod = Args::parse(text).unwrap().pod.unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()),
            ("shop", "web-0", Some("u"))
        );
        let error = Args::parse("X=y;K8S_POD_NAME=n").unwrap_err();
        assert!(error.msg.contains("unknown keys, and no IgnoreUnknown=1: X"), "{}", error.msg);
        assert!(Args::parse("IgnoreUnknown=maybe").is_err());
        assert!(Args::parse("nonsense").is_err());
        let args = Args::parse("IP=10.1.0.9/24,fd00::9;MAC=02:00:00:00:00:01").unwrap();
        assert_eq!(args.addresses, ["10.1.0.9".parse::<IpAddr>().unwrap(), "fd00::9".parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn no_arguments_make_it_panic(text in ".{0,80}") {
            let _ = Args::parse(&text);
        }
    }
}
