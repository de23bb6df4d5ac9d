//! Options of the plugin `portmap` beside the mappings themselves.
//!
//! Most say by which rules it does its work. There are no such rules here: what they are to bring about is so anyway, and
//! they are only checked, so that a configuration that portmap would refuse is refused.

use super::{
    Config,
    conditions::{self, Style},
};
use crate::error::{Error, Result};

/// Refuses what portmap refuses, and what cannot be had here.
pub(super) fn check(config: &Config) -> Result<()> {
    let backend = config.backend.as_deref().filter(|backend| !backend.is_empty());
    if let Some(other) = backend.filter(|backend| !matches!(*backend, "iptables" | "nftables")) {
        return Err(Error::unsupported("backend", format_args!("{other:?}")));
    }
    if config.mark_masq_bit.is_some() && config.external_set_mark_chain.is_some() {
        return Err(Error::config("markMasqBit and externalSetMarkChain exclude each other"));
    }
    if let Some(bit) = config.mark_masq_bit.filter(|bit| !(0..=31).contains(bit)) {
        return Err(Error::config(format!("markMasqBit: {bit} is not from 0 to 31")));
    }
    if config.external_set_mark_chain.is_some() && backend == Some("nftables") {
        return Err(Error::config(
            "externalSetMarkChain is for the backend iptables, and backend is \"nftables\"",
        ));
    }
    for (key, v4) in [("conditionsV4", true), ("conditionsV6", false)] {
        let words = config.conditions(v4);
        if let (Some(style), Some(backend)) = (Style::of(words).map(Style::backend), backend)
            && style != backend
        {
            return Err(Error::config(format!("{key} is written for {style}, and backend is {backend:?}")));
        }
        conditions::parse(key, words, v4)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Config> {
        Config::parse(format!(r#"{{"name":"n",{fields}}}"#).as_bytes())
    }

    #[test]
    fn what_portmap_takes_is_taken() {
        for (fields, masquerades) in [
            (r#""backend":"iptables","snat":true,"markMasqBit":13"#, false),
            (r#""backend":"nftables","snat":false,"conditionsV4":[],"conditionsV6":null"#, false),
            (r#""externalSetMarkChain":"KUBE-MARK-MASQ","masqAll":true"#, true),
            (r#""masqAll":true,"snat":false"#, false),
            (
                r#""backend":"","snat":null,"markMasqBit":null,"externalSetMarkChain":null,"conditionsV4":[""]"#,
                false,
            ),
            (r#""conditionsV4":["!","-s","10.0.0.0/8"],"conditionsV6":["ip6 saddr fd00::/8"]"#, false),
        ] {
            assert_eq!(read(fields).unwrap().masquerades_host_ports(), masquerades, "{fields}");
        }
    }

    #[test]
    fn what_portmap_refuses_is_refused() {
        for (fields, expected) in [
            (r#""backend":"ebpf""#, "backend: \"ebpf\" is not supported"),
            (r#""markMasqBit":32"#, "markMasqBit: 32 is not from 0 to 31"),
            (r#""markMasqBit":-1"#, "markMasqBit: -1 is not from 0 to 31"),
            (
                r#""markMasqBit":0,"externalSetMarkChain":"X""#,
                "markMasqBit and externalSetMarkChain exclude each other",
            ),
            (
                r#""backend":"nftables","externalSetMarkChain":"X""#,
                "externalSetMarkChain is for the backend iptables, and backend is \"nftables\"",
            ),
            (
                r#""backend":"nftables","conditionsV6":["!","-s","fd00::/8"]"#,
                "conditionsV6 is written for iptables, and backend is \"nftables\"",
            ),
            (
                r#""conditionsV4":["-s","here"]"#,
                r#"conditionsV4: ["-s", "here"]: "here" is no address and no network"#,
            ),
        ] {
            assert_eq!(read(fields).unwrap_err().msg, expected);
        }
    }
}
