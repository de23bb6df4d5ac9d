//! In which order addresses are told.

use std::net::IpAddr;

use ipnet::IpNet;

use super::weights::Weights;
use crate::{
    Order, OrderPolicy,
    message::{Address, arrange, cut},
    query::Query,
    wire::{rtype, u16_at},
};

/// An order, ready for use.
#[derive(Debug)]
pub(crate) struct Arranger {
    takes_turns: bool,
    weights: Option<Weights>,
    prefer: Vec<IpNet>,
}

impl Arranger {
    pub(super) fn new(order: &Order) -> Self {
        let weights = match &order.policy {
            OrderPolicy::Weighted(file) => Some(Weights::new(file)),
            OrderPolicy::Turns | OrderPolicy::AsTheyCome => None,
        };
        let takes_turns = order.policy == OrderPolicy::Turns;
        Self { takes_turns, weights, prefer: order.prefer.clone() }
    }

    /// Keeps up with the weights, for ever.
    pub(super) async fn watch(&self) {
        if let Some(weights) = &self.weights {
            weights.watch().await;
        }
    }

    /// Whose turn it is to be told first; 0 where all stay in their places.
    pub(crate) fn turn(&self, turn: u32) -> u32 {
        if self.takes_turns { turn } else { 0 }
    }

    /// Whether it is decided only when the whole answer is there.
    pub(crate) fn is_about_whole_answers(&self) -> bool {
        self.weights.is_some() || !self.prefer.is_empty()
    }

    /// Puts the addresses of a whole answer in order, and cuts it to `limit` bytes.
    pub(crate) fn arrange(&self, query: &Query<'_>, limit: usize, answer: &mut Vec<u8>) {
        if u16_at(answer, 2).is_some_and(|flags| flags & 0xf == 0) {
            let weights = self.weights.as_ref();
            let weights = weights.filter(|_| matches!(query.qtype, rtype::A | rtype::AAAA | rtype::SRV));
            arrange(answer, |addresses| {
                let mut order: Vec<usize> = (0..addresses.len()).collect();
                if let Some(weights) = weights {
                    order.swap(0, drawn(addresses, weights));
                }
                // Those of one rank stay as they are.
                order.sort_by_key(|place| self.rank(addresses[*place].ip));
                order
            });
        }
        cut(answer, limit);
    }

    /// The place of the first network that an address is of.
    fn rank(&self, ip: IpAddr) -> usize {
        self.prefer.iter().position(|net| net.contains(&ip)).unwrap_or(self.prefer.len())
    }
}

/// One of the addresses, each as likely as it weighs.
fn drawn(addresses: &[Address], weights: &Weights) -> usize {
    let each: Vec<u32> = addresses.iter().map(|address| weights.of(&address.owner, address.ip)).collect();
    let mut left = rand::random_range(0..each.iter().sum::<u32>().max(1));
    let drawn = each.iter().position(|weight| match left.checked_sub(*weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    drawn.unwrap_or_default()
}
