//! In which order addresses are told: the `loadbalance` of CoreDNS.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

/// In which order the addresses of an answer stand. Clients take the first, as a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Which is the first.
    pub policy: OrderPolicy,
    /// Addresses of these networks go before all others, those of the first network first.
    pub prefer: Vec<IpNet>,
}

impl Order {
    /// Answers stay as they are.
    pub const AS_IT_COMES: Self = Self { policy: OrderPolicy::AsTheyCome, prefer: Vec::new() };
}

/// Which of several addresses is the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OrderPolicy {
    /// Each as often as any other, and so with mail servers.
    #[default]
    Turns,
    /// The same one, always.
    AsTheyCome,
    /// Each as often as it weighs.
    Weighted(WeightFile),
}

/// A file of weights: names, and below each of them addresses with their weights, 1 to 255. What is not there weighs 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFile {
    /// The file.
    pub file: PathBuf,
    /// How often it is looked at; 0: once.
    pub reload: Duration,
}
