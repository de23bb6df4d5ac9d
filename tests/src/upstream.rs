//! The DNS server of the wide world: every name has the addresses that were given, over UDP, and nothing else; but those
//! whose first label begins with `absent-` do not exist.
//!
//! Enough to see that a name outside the cluster was asked for elsewhere, and not more.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use crate::{Error, Result};

/// An answer's header flags: response, authoritative, recursion desired and available, no error.
const FLAGS: [u8; 2] = [0x85, 0x80];
const TYPE_A: [u8; 2] = [0, 1];
const TYPE_AAAA: [u8; 2] = [0, 28];
const HEADER: usize = 12;

/// Serves on port 53, both families.
pub fn serve(addresses: &[IpAddr]) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)).map_err(Error::file("listen on", "port 53"))?;
    let mut buffer = [0_u8; 512];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).map_err(Error::file("read from", "port 53"))?;
        if let Some(answer) = answer(&buffer[..length], addresses) {
            // A client that went away is not waited for.
            let _gone = socket.send_to(&answer, client);
        }
    }
}

/// How the names begin that do not exist.
const ABSENT: &[u8] = b"absent-";
/// Their SOA record, of the root: names as long as they usually are, five numbers.
const SOA: &[u8] =
    b"\0\0\x06\0\x01\0\0\x0e\x10\0\x40\x01a\x0croot-servers\x03net\0\x05nstld\x0cverisign-grs\x03com\0\
                     \x78\xc7\xc9\x2c\0\0\x07\x08\0\0\x03\x84\0\x09\x3a\x80\0\x01\x51\x80";

/// The answer to a query with one question.
fn answer(query: &[u8], addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    let end = HEADER + name + 5;
    let question = query.get(HEADER..end)?;
    if question.get(1..)?.starts_with(ABSENT) {
        let mut answer = query[..2].to_vec();
        answer.extend([FLAGS[0], FLAGS[1] | 3, 0, 1, 0, 0, 0, 1, 0, 0]);
        answer.extend(question);
        answer.extend(SOA);
        return Some(answer);
    }
    let kind = &question[name + 1..name + 3];
    let records: Vec<Vec<u8>> = addresses.iter().filter_map(|address| record(kind, address)).collect();
    let count = u8::try_from(records.len()).ok()?;
    let mut answer = query[..2].to_vec();
    answer.extend(FLAGS);
    answer.extend([0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    answer.extend(records.concat());
    Some(answer)
}

fn record(kind: &[u8], address: &IpAddr) -> Option<Vec<u8>> {
    let (own, data) = match address {
        IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
        IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
    };
    if kind != own {
        return None;
    }
    // The name is a pointer to the question; class IN, 60 seconds.
    let mut record = vec![0xc0, 0x0c];
    record.extend(own);
    record.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).ok()?]);
    record.extend(data);
    Some(record)
}
