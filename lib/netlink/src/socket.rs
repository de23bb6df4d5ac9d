//! The socket: requests, acknowledgements, dumps.

use std::{
    fmt::Display,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::{
    Error, Result,
    attributes::{self, Malformed},
};

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What the kernel packs into one message of a dump, at most.
const BUFFER_BYTES: usize = 32 * 1024;
/// A dump of a table that changes all the time is repeated this often before it counts as an error.
const DUMP_ATTEMPTS: u32 = 16;

/// A connection to rtnetlink in the network namespace that it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Box<[u8]>,
}

/// Verb and object, for errors.
#[derive(Clone, Copy)]
pub(crate) struct Action<'a> {
    pub(crate) verb: &'static str,
    pub(crate) object: &'a dyn Display,
}

impl Action<'_> {
    pub(crate) fn io(&self, source: io::Error) -> Error {
        self.refused(source, None)
    }

    fn refused(&self, source: io::Error, message: Option<String>) -> Error {
        Error::Request { verb: self.verb, object: self.object.to_string(), message, source }
    }

    pub(crate) fn malformed(&self, reason: &Malformed) -> Error {
        Error::Decode { verb: self.verb, object: self.object.to_string(), reason: reason.0.clone() }
    }
}

/// What one message of an answer means.
enum Answer<'a> {
    Data(u16, &'a [u8]),
    /// Acknowledged, or the end of a dump.
    Done,
    /// Belongs to an earlier request, or means nothing.
    Other,
}

/// Where an answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// With its first message.
    First,
    /// With an acknowledgement, or what ends a dump.
    Done,
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let action = Action { verb: "open", object: &"a netlink socket" };
        let socket = Socket::new(NETLINK_ROUTE).map_err(|error| action.io(error))?;
        // Short acknowledgements, the kernel's words in errors, and dumps that obey their filters. Kernels since
        // 4.20 have all three; on others the verbs that need a filter apply it once more themselves.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() })
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    pub(crate) fn execute(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: Action<'_>,
    ) -> Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, action)?;
        self.receive(action, Until::Done, |_, _| Ok(()))?;
        Ok(())
    }

    /// As [`Self::execute`], for a request that makes something: gives what the kernel announces of it, where it does so
    /// to whoever asked (links: since Linux 6.2).
    pub(crate) fn execute_echoed<T>(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: Action<'_>,
        mut parse: impl FnMut(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>> {
        let mut echoed = None;
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO | flags, action)?;
        self.receive(action, Until::Done, |_, payload| {
            echoed = Some(parse(payload)?);
            Ok(())
        })?;
        Ok(echoed)
    }

    /// Sends requests together, and gives those that failed, by their place. `action` tells what the one at a place is.
    /// The kernel tells of each failure, and that it has come to the end: one answer where all goes well.
    pub(crate) fn execute_all<'a>(
        &mut self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
        action: impl Fn(usize) -> Action<'a>,
    ) -> Vec<(usize, Error)> {
        let Some(last) = messages.len().checked_sub(1) else { return Vec::new() };
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for (place, (message, flags)) in messages.into_iter().enumerate() {
            let end = if place == last { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, message, NLM_F_REQUEST | end | flags);
        }
        let mut failed = Vec::new();
        let sent = self.write(&bytes, action(last));
        if let Err(error) = sent.and_then(|()| self.acknowledged(first, last, &action, &mut failed)) {
            failed.push((last, error));
        }
        failed
    }

    /// Reads the answers to requests that were sent together, up to that to the last.
    fn acknowledged<'a>(
        &mut self,
        first: u32,
        last: usize,
        action: &impl Fn(usize) -> Action<'a>,
        failed: &mut Vec<(usize, Error)>,
    ) -> Result<()> {
        loop {
            let length = self.read(action(last))?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)
                    .map_err(|error| action(last).malformed(&Malformed(error.to_string())))?;
                let sequence = message.sequence_number();
                let place = sequence.wrapping_sub(first) as usize;
                if place <= last && message.message_type() == NLMSG_ERROR {
                    let answer = interpret(&message, sequence, action(place)).map(drop);
                    failed.extend(answer.err().map(|error| (place, error)));
                    if place == last {
                        return Ok(());
                    }
                }
                let aligned = (message.length() as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[aligned..];
            }
        }
    }

    /// Sends a request that is answered by one object.
    pub(crate) fn get<T>(
        &mut self,
        message: RouteNetlinkMessage,
        action: Action<'_>,
        mut parse: impl FnMut(u16, &[u8]) -> Result<T, Malformed>,
    ) -> Result<T> {
        let mut found = None;
        // No acknowledgement is asked for: the answer is one already, and so is an error.
        self.send(message, NLM_F_REQUEST, action)?;
        self.receive(action, Until::First, |kind, payload| {
            found = Some(parse(kind, payload)?);
            Ok(())
        })?;
        found.ok_or_else(|| action.malformed(&Malformed("it is empty".to_owned())))
    }

    /// Sends a request that is answered by a list: all of it, or an error.
    pub(crate) fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        action: Action<'_>,
        mut parse: impl FnMut(u16, &[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut list = Vec::new();
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, action)?;
            let whole = self.receive(action, Until::Done, |kind, payload| {
                list.extend(parse(kind, payload)?);
                Ok(())
            });
            match whole {
                Ok(true) => return Ok(list),
                Ok(false) => {}
                Err(error) if error.errno() == Some(Errno::EINTR as i32) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Interrupted {
            verb: action.verb,
            object: action.object.to_string(),
            attempts: DUMP_ATTEMPTS,
        })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16, action: Action<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags);
        self.write(&bytes, action)
    }

    /// Puts a request behind others, under the next number.
    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let begin = bytes.len();
        bytes.resize(begin + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[begin..]);
    }

    fn write(&mut self, bytes: &[u8], action: Action<'_>) -> Result<()> {
        let kernel = SocketAddr::new(0, 0);
        loop {
            match self.socket.send_to(bytes, &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(action.io(error)),
            }
        }
    }

    /// Reads the answer to the last request to its end. `Ok(false)` means that the kernel marked it as interrupted.
    /// It is always read to the end, so that an error does not leave the rest of it to the next request.
    fn receive(
        &mut self,
        action: Action<'_>,
        until: Until,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Malformed>,
    ) -> Result<bool> {
        let mut whole = true;
        let mut failed = None;
        loop {
            let length = self.read(action)?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)
                    .map_err(|error| action.malformed(&Malformed(error.to_string())))?;
                whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                let done = match interpret(&message, self.sequence, action)? {
                    Answer::Data(kind, payload) => {
                        if failed.is_none() {
                            failed = each(kind, payload).err();
                        }
                        until == Until::First
                    }
                    Answer::Done => true,
                    Answer::Other => false,
                };
                if done {
                    return failed.map_or(Ok(whole), |reason| Err(action.malformed(&reason)));
                }
                let aligned = (message.length() as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[aligned..];
            }
        }
    }

    fn read(&mut self, action: Action<'_>) -> Result<usize> {
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], nix::libc::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(action.malformed(&Malformed(format!("a message of {length} bytes"))));
                }
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(action.io(error)),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn interpret<'a>(message: &NetlinkBuffer<&'a [u8]>, sequence: u32, action: Action<'_>) -> Result<Answer<'a>> {
    if message.sequence_number() != sequence {
        return Ok(Answer::Other);
    }
    let payload = message.payload();
    match message.message_type() {
        NLMSG_NOOP => Ok(Answer::Other),
        kind @ (NLMSG_ERROR | NLMSG_DONE) => {
            // The end of a dump may come without a code, which means success.
            let code =
                payload.get(..4).map_or(Ok(0), attributes::i32).map_err(|error| action.malformed(&error))?;
            if code == 0 {
                return Ok(Answer::Done);
            }
            let words =
                (message.flags() & NLM_F_ACK_TLVS != 0).then(|| kernel_words(kind, payload)).flatten();
            Err(action.refused(io::Error::from_raw_os_error(-code), words))
        }
        kind => Ok(Answer::Data(kind, payload)),
    }
}

/// The explanation that came with an error. It stands after the code and, in an acknowledgement, after the
/// header of the request (capped acknowledgements do not repeat the request itself).
fn kernel_words(kind: u16, payload: &[u8]) -> Option<String> {
    let skip = if kind == NLMSG_ERROR { 4 + 16 } else { 4 };
    let mut words = None;
    let _ = attributes::for_each(payload.get(skip..)?, |attribute, value| {
        if attribute == NLMSGERR_ATTR_MSG {
            words = Some(attributes::text(value));
        }
        Ok(())
    });
    words
}
