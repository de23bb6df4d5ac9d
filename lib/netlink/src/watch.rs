//! What changes, as it changes.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{Address, Link, Neighbour, Result, Route, attributes::Malformed, socket::Action};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;

/// What to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Links that come, change or go.
    Links,
    /// Addresses of both families.
    Addresses,
    /// Routes of both families.
    Routes,
    /// Neighbours of both families.
    Neighbours,
}

impl Topic {
    /// The kernel's multicast groups, `RTNLGRP_*`.
    const fn groups(self) -> &'static [u32] {
        match self {
            Self::Links => &[1],
            Self::Addresses => &[5, 9],
            Self::Routes => &[7, 11],
            Self::Neighbours => &[3],
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link came or changed.
    Link(Link),
    /// A link went.
    LinkGone(Link),
    /// An address came or changed.
    Address(Address),
    /// An address went.
    AddressGone(Address),
    /// A route came or changed.
    Route(Route),
    /// A route went.
    RouteGone(Route),
    /// A neighbour came or changed.
    Neighbour(Neighbour),
    /// A neighbour went.
    NeighbourGone(Neighbour),
    /// More happened than the socket holds, or something that could not be read: list again what matters.
    Missed,
}

/// A subscription. Its file descriptor is readable when [`Self::next`] has something.
pub struct Watch {
    socket: Socket,
    buffer: Box<[u8]>,
    pending: VecDeque<Event>,
}

const ACTION: Action<'_> = Action { verb: "watch", object: &"rtnetlink" };

impl Watch {
    /// Watches the calling thread's namespace from now on. To miss nothing, open it before the first list.
    pub fn open(topics: &[Topic]) -> Result<Self> {
        Self::new(topics, false)
    }

    /// The same, and in all namespaces that devices of this one have their peers in. An event does not say where it was.
    pub fn open_everywhere(topics: &[Topic]) -> Result<Self> {
        Self::new(topics, true)
    }

    fn new(topics: &[Topic], everywhere: bool) -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|error| ACTION.io(error))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(|error| ACTION.io(error))?;
        if everywhere {
            socket.set_listen_all_namespaces(true).map_err(|error| ACTION.io(error))?;
        }
        for group in topics.iter().flat_map(|topic| topic.groups()) {
            socket.add_membership(*group).map_err(|error| ACTION.io(error))?;
        }
        socket.set_non_blocking(true).map_err(|error| ACTION.io(error))?;
        Ok(Self { socket, buffer: vec![0; 32 * 1024].into_boxed_slice(), pending: VecDeque::new() })
    }

    /// The next event; `None` if none came within `limit` (no limit: waits for ever; zero: does not wait).
    pub fn next(&mut self, limit: Option<Duration>) -> Result<Option<Event>> {
        let deadline = limit.map(|limit| std::time::Instant::now() + limit);
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.read()? {
                continue;
            }
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(std::time::Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    // Rounded up, so that the last millisecond is waited for and not spun through.
                    PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
                }
            };
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(ACTION.io(errno.into())),
            }
        }
    }

    /// Takes one datagram, if there is one, into `pending`. Says whether there was one.
    fn read(&mut self) -> Result<bool> {
        let length = match self.socket.recv(&mut &mut self.buffer[..], nix::libc::MSG_TRUNC) {
            Ok(length) if length > self.buffer.len() => {
                self.pending.push_back(Event::Missed);
                return Ok(true);
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                self.pending.push_back(Event::Missed);
                return Ok(true);
            }
            Err(error) => return Err(ACTION.io(error)),
        };
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                self.pending.push_back(Event::Missed);
                break;
            };
            match event(message.message_type(), message.payload()) {
                Ok(event) => self.pending.extend(event),
                Err(_) => self.pending.push_back(Event::Missed),
            }
            rest = &rest[(message.length() as usize).next_multiple_of(4).min(rest.len())..];
        }
        Ok(true)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn event(kind: u16, payload: &[u8]) -> Result<Option<Event>, Malformed> {
    // The family is the first byte of every header; bridges tell of their ports under their own.
    let ip_or_none = matches!(payload.first(), Some(0 | 2 | 10));
    Ok(match kind {
        RTM_NEWLINK if ip_or_none => Some(Event::Link(Link::parse(payload)?)),
        RTM_DELLINK if ip_or_none => Some(Event::LinkGone(Link::parse(payload)?)),
        RTM_NEWADDR => Some(Event::Address(Address::parse(payload)?)),
        RTM_DELADDR => Some(Event::AddressGone(Address::parse(payload)?)),
        RTM_NEWROUTE => Route::parse(payload)?.map(Event::Route),
        RTM_DELROUTE => Route::parse(payload)?.map(Event::RouteGone),
        RTM_NEWNEIGH => Neighbour::parse(payload)?.map(Event::Neighbour),
        RTM_DELNEIGH => Neighbour::parse(payload)?.map(Event::NeighbourGone),
        _ => None,
    })
}
