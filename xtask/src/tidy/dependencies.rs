//! Which crate may know which: the map of ARCHITECTURE.md, held against what cargo resolves.

use crate::command::{cargo, output};
use crate::error::Result;
use crate::workspace::Workspace;

/// A crate, and the crates that it must not link, however indirectly. A name that ends in `-` is a prefix.
const RULES: [(&str, &[&str]); 6] = [
    ("sluice-ebpf-common", &["sluice-", "serde", "tokio", "aya"]),
    ("sluice-model", &["aya", "hickory-", "k8s-openapi", "kube", "sluice-", "tokio"]),
    ("sluice-netlink", &["aya", "hickory-", "k8s-openapi", "kube", "sluice-", "tokio"]),
    ("sluice-proxy", &["hickory-", "k8s-openapi", "kube", "sluice", "sluice-cni", "sluice-dns", "tokio"]),
    ("sluice-dns", &["aya", "k8s-openapi", "kube", "sluice", "sluice-cni", "sluice-proxy"]),
    ("sluice-cni", &["hickory-", "k8s-openapi", "kube", "sluice", "sluice-dns", "sluice-proxy", "tokio"]),
];

/// The findings.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (package, forbidden) in RULES {
        let arguments =
            ["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"];
        let tree = output(&mut cargo(workspace.root(), arguments))?;
        findings.extend(against(package, forbidden, &tree));
    }
    Ok(findings)
}

fn against(package: &str, forbidden: &[&str], tree: &str) -> Vec<String> {
    let mut linked: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    linked.sort_unstable();
    linked.dedup();
    let broken = linked.into_iter().filter(|name| *name != package).filter(|name| {
        forbidden.iter().any(|rule| if rule.ends_with('-') { name.starts_with(rule) } else { name == rule })
    });
    broken.map(|name| format!("the crate {package} must not link {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_crate_is_found_once_and_by_prefix() {
        let tree =
            "sluice-cni v0.1.0 (/x)\ntokio v1.54.0\nserde v1.0.0\ntokio v1.54.0 (*)\nhickory-proto v0.26.0\n";
        let found = against("sluice-cni", &["tokio", "hickory-"], tree);
        assert_eq!(
            found,
            ["the crate sluice-cni must not link hickory-proto", "the crate sluice-cni must not link tokio"]
        );
    }

    #[test]
    fn the_crate_itself_is_no_finding() {
        assert_eq!(against("sluice-model", &["sluice-"], "sluice-model v0.1.0\nipnet v2.12.0\n"), [""; 0]);
    }
}
