//! Programs on a link's packets by way of the traffic control layer (qdisc `clsact`, filter `bpf`): the way of
//! kernels that have no links for it (TCX, 6.6).
//!
//! Ours is told from others' by its priority and its handle. Programs of others, and their qdisc, stay.

use std::{
    fmt,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};
use nix::errno::Errno;

use crate::{
    Netlink, Result,
    attributes::{self, Malformed, attribute},
    socket::Action,
};

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const NLA_NESTED: u16 = 1 << 15;
/// The program's return value is the verdict.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
const ETH_P_ALL: u16 = 3;

/// The priority of our filters: our protocol number for routes, twice.
const PRIORITY: u16 = 0x5353;
/// The handle of our filters.
const HANDLE: u32 = 1;

/// Which of a link's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those that come in.
    Ingress,
    /// Those that go out.
    Egress,
}

impl Direction {
    const fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => 0xfff2,
            Self::Egress => 0xfff3,
        };
        TcHandle { major: 0xffff, minor }
    }
}

/// A program that [`Netlink::set_filter`] has put on a link.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ProgramFilter {
    /// The name that it was given.
    pub name: String,
    /// The kernel's id of the program.
    pub program: u32,
}

impl ProgramFilter {
    /// `None` for filters that are not ours.
    fn parse(payload: &[u8], index: u32, direction: Direction) -> Result<Option<Self>, Malformed> {
        let (header, rest) = attributes::split_header(payload, 20)?;
        let word = |at: usize| attributes::u32(&header[at..at + 4]);
        let (held_index, handle, parent, info) = (word(4)?, word(8)?, word(12)?, word(16)?);
        let ours = held_index == index
            && handle == HANDLE
            && parent == u32::from(direction.parent())
            && info >> 16 == u32::from(PRIORITY);
        let (mut filter, mut is_program) = (Self::default(), false);
        attributes::for_each(rest, |kind, value| {
            match kind {
                TCA_KIND => is_program = attributes::text(value) == "bpf",
                TCA_OPTIONS if is_program => attributes::for_each(value, |kind, value| {
                    match kind {
                        TCA_BPF_NAME => filter.name = attributes::text(value),
                        TCA_BPF_ID => filter.program = attributes::u32(value)?,
                        _ => {}
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok((ours && is_program).then_some(filter))
    }
}

/// A link and a direction, for errors.
struct Place(u32, Direction);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.1 {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "at {direction} of link with index {}", self.0)
    }
}

fn message(index: u32, direction: Direction) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = direction.parent();
    message.header.handle = HANDLE.into();
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    message
}

impl Netlink {
    /// Puts a program on a link's packets, in place of the one that was there: no packet passes between the two.
    pub fn set_filter(
        &mut self,
        index: u32,
        direction: Direction,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> Result<()> {
        self.ensure_clsact(index)?;
        let options = [
            attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
            attribute(TCA_BPF_NAME, &[name.as_bytes(), &[0]].concat()),
            attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
        ]
        .concat();
        let mut message = message(index, direction);
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS | NLA_NESTED, options)));
        let action = Action { verb: "set program", object: &Place(index, direction) };
        self.execute(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_REPLACE, action)
    }

    /// Our program on a link's packets, if there is one.
    pub fn filter(&mut self, index: u32, direction: Direction) -> Result<Option<ProgramFilter>> {
        let mut message = TcMessage::with_index(index.cast_signed());
        message.header.parent = direction.parent();
        let action = Action { verb: "list programs", object: &Place(index, direction) };
        let list = self.dump(&RouteNetlinkMessage::GetTrafficFilter(message), action, |_, payload| {
            ProgramFilter::parse(payload, index, direction)
        });
        match list {
            Ok(list) => Ok(list.into_iter().next()),
            // No such qdisc, or none at all.
            Err(error) if error.is_not_found() || error.errno() == Some(Errno::EINVAL as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes back [`Self::set_filter`]. Says whether there was anything. The qdisc stays: others may use it.
    pub fn delete_filter(&mut self, index: u32, direction: Direction) -> Result<bool> {
        if self.filter(index, direction)?.is_none() {
            return Ok(false);
        }
        let mut message = message(index, direction);
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        let action = Action { verb: "remove program", object: &Place(index, direction) };
        match self.execute(RouteNetlinkMessage::DelTrafficFilter(message), 0, action) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ensure_clsact(&mut self, index: u32) -> Result<()> {
        let mut message = TcMessage::with_index(index.cast_signed());
        message.header.parent = CLSACT;
        message.header.handle = TcHandle { major: 0xffff, minor: 0 };
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let object = format_args!("clsact of link with index {index}");
        let action = Action { verb: "make qdisc", object: &object };
        match self.execute(
            RouteNetlinkMessage::NewQueueDiscipline(message),
            NLM_F_CREATE | NLM_F_EXCL,
            action,
        ) {
            Err(error) if !error.is_exists() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ProgramFilter::parse(&payload, 1, Direction::Ingress);
        }
    }
}
