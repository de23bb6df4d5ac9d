//! What the plugin says to people.

/// What to print to somebody who runs it by hand; `None` if it is a runtime that calls.
pub(crate) fn for_people(arguments: &[String], by_hand: bool) -> Option<String> {
    match arguments.first().map(String::as_str) {
        Some("--version" | "-V" | "version") => Some(format!("sluice-cni {}\n", env!("CARGO_PKG_VERSION"))),
        Some(_) => Some(help()),
        None => by_hand.then(help),
    }
}

fn help() -> String {
    format!(
        r#"sluice-cni {version} attaches containers to the network, as a plugin of the Container Network Interface.

It is not run by hand: a container runtime (containerd, CRI-O) runs it with CNI_COMMAND and
other variables in the environment and a network configuration on standard input.

To use it, put it into the runtime's plugin folder, and this into /etc/cni/net.d/10-sluice.conflist:

  {{
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [{{ "type": "sluice-cni", "ipam": {{ "ranges": [[{{ "subnet": "10.244.1.0/24" }}]] }} }}]
  }}

With the Sluice agent on the node leave "ipam" out: the agent says which addresses the node has.

To try it by hand, as root:

  ip netns add try
  CNI_COMMAND=ADD CNI_CONTAINERID=try CNI_NETNS=/run/netns/try CNI_IFNAME=eth0 \
    sluice-cni < /etc/cni/net.d/10-sluice.conflist
  CNI_COMMAND=DEL CNI_CONTAINERID=try CNI_NETNS=/run/netns/try CNI_IFNAME=eth0 \
    sluice-cni < /etc/cni/net.d/10-sluice.conflist

Commands: ADD, DEL, CHECK, STATUS, GC, VERSION. All options: docs/cni.md.
"#,
        version = env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_words_and_runtimes_do_not() {
        let arguments = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(for_people(&arguments(&[]), false), None);
        assert!(for_people(&arguments(&[]), true).unwrap().contains("It is not run by hand"));
        assert!(for_people(&arguments(&["--help"]), false).unwrap().contains("\"type\": \"sluice-cni\""));
        assert!(for_people(&arguments(&["--version"]), false).unwrap().starts_with("sluice-cni 0."));
    }

    #[test]
    fn the_configuration_in_the_help_is_one_that_works() {
        let text = help();
        let from = text.find("  {\n").unwrap();
        let to = text.find("  }\n\n").unwrap() + 3;
        let config = crate::config::Config::parse(&text.as_bytes()[from..to]).unwrap();
        assert_eq!(config.name, "pods");
    }
}
