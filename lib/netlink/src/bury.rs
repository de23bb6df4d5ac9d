//! Deleting a link without waiting for the kernel to bury it.
//!
//! The kernel takes a link out of its namespace in well under a millisecond. The request to do so returns only when
//! all memory of it is gone too, some ten to thirty milliseconds later, and nothing can be done by then that
//! could not be done before. There is no way to ask for the one without the other, so a child process asks, and
//! the caller waits for the news that the link is gone instead of for the child. Connections to the packet filter, whose
//! closing waits likewise, the child takes over.

#![expect(unsafe_code, reason = "fork, with a child that makes a few system calls")]

use std::{
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use nix::libc;

use crate::{Event, Netlink, PacketFilter, Result, Topic, Watch};

/// How long the child may take to be heard of, on a machine that is very busy. After that the caller asks itself.
const LIMIT: Duration = Duration::from_secs(2);
/// After so long without news, look whether there will be any: the link may have gone before the child asked.
const PATIENCE: Duration = Duration::from_millis(20);

impl Netlink {
    /// Deletes a link as [`Self::delete_link`] does, and returns when it is gone from the namespace: its name and
    /// its addresses are free, and so is its peer's. The kernel may be busy with its remains for some
    /// milliseconds, on the account of a child process that has nothing of ours open but `filter`, which it closes
    /// when it is done.
    ///
    /// For a process that is about to end: the child is not waited for. To be called in the namespace that this
    /// connection was opened in.
    pub fn delete_link_promptly(&mut self, index: u32, filter: Option<&PacketFilter>) -> Result<()> {
        let mut watch = Watch::open(&[Topic::Links])?;
        let child = Self::open()?;
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::DelLink(message));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);

        let filter = filter.map(|filter| filter.as_fd().as_raw_fd());
        if !send_from_child(child.as_fd().as_raw_fd(), filter, &request) {
            // No process to be had: then it is waited for.
            return self.delete_link(index);
        }
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match watch.next(Some(PATIENCE))? {
                Some(Event::LinkGone(link)) if link.index == index => return Ok(()),
                Some(event) if event != Event::Missed => {}
                _ => match self.link_by_index(index) {
                    Err(error) if error.is_not_found() => return Ok(()),
                    _ => {}
                },
            }
        }
        match self.delete_link(index) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}

/// Sends a request to the kernel from a child process, which keeps another descriptor open until then. Says whether
/// there is one.
fn send_from_child(socket: libc::c_int, other: Option<libc::c_int>, request: &[u8]) -> bool {
    let (first, last) = (socket.min(other.unwrap_or(socket)), socket.max(other.unwrap_or(socket)));
    let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
    // SAFETY: the child calls nothing but `close_range`, `send` and `_exit`, which a child may call whatever locks other
    // threads of its parent held; it touches no memory but `request`, which it has a copy of.
    unsafe {
        match libc::fork() {
            0 => {
                // Whoever reads our output to its end, or wants a file that we have locked, is not to wait for the child.
                for (from, to) in [(0, first), (first + 1, last), (last + 1, libc::c_uint::MAX)] {
                    if from < to {
                        libc::syscall(libc::SYS_close_range, from, to - 1, 0);
                    }
                }
                // The kernel is addressed by a socket that is not connected. What it answers nobody reads: the
                // link was deleted, or somebody else was faster.
                libc::send(socket, request.as_ptr().cast(), request.len(), 0);
                libc::_exit(0)
            }
            child => child > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Namespace, VethEnd};

    #[test]
    fn a_link_is_gone_at_once_and_its_name_is_free() {
        let (node, pod) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        node.run(|| {
            let mut netlink = crate::Netlink::open().unwrap();
            for _ in 0..5 {
                netlink.create_veth(&VethEnd::new("a"), &VethEnd::new("b").namespace(&pod)).unwrap();
                let index = netlink.link("a").unwrap().index;
                netlink.delete_link_promptly(index, None).unwrap();
                assert!(netlink.find_link("a").unwrap().is_none());
                assert!(pod.netlink().unwrap().find_link("b").unwrap().is_none());
            }
        })
        .unwrap();
    }

    #[test]
    fn a_link_that_is_not_there_is_no_matter() {
        Namespace::create()
            .unwrap()
            .run(|| assert!(crate::Netlink::open().unwrap().delete_link_promptly(4711, None).is_ok()))
            .unwrap();
    }
}
