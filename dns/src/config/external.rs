//! The cluster's services as those outside see them: CoreDNS's `k8s_external`.

/// Domains in which services have their addresses for the outside: `<service>.<namespace>.<zone>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The domains; among them may be reverse ones, for those addresses. The first other one is what these lead to.
    pub zones: Vec<String>,
    /// The label below which the domains' name server has its name, `ns1.<apex>.<zone>`.
    pub apex: String,
    /// Time to live in seconds, 0 to 3600.
    pub ttl: u32,
    /// Headless services without external addresses have their endpoints' there.
    pub headless: bool,
    /// Names that do not exist are asked for elsewhere, where one of these domains holds them; empty: all; none: none.
    pub fallthrough: Option<Vec<String>>,
    /// Domains within those that are left to others.
    pub except: Vec<String>,
}

impl Default for External {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            apex: "dns".to_owned(),
            ttl: 5,
            headless: false,
            fallthrough: None,
            except: Vec::new(),
        }
    }
}
