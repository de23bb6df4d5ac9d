//! Packets for the datapath's tables: built with right checksums, and read back into a line of text.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// TCP flags, as in the header.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// The number of TCP, as maps have it.
pub const TCP: u16 = 6;
/// The number of UDP, as maps have it.
pub const UDP: u16 = 17;
/// The number of SCTP, as maps have it.
pub const SCTP: u16 = 132;

/// Whom frames are for, by their link-layer address.
pub const DESTINATION_MAC: [u8; 6] = [0x0e; 6];

/// What is above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP; `false` leaves the checksum out, as IPv4 allows.
    Udp(bool),
    /// SCTP, its first chunk of this type.
    Sctp(u8),
    /// ICMP or ICMPv6 echo; `true` is a reply. The ports are the identifier.
    Echo(bool),
}

/// A packet to be built.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// What is above IP.
    pub transport: Transport,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Bytes of IPv4 options, a multiple of four.
    pub options: usize,
    /// The IPv4 header's fragment field, host byte order.
    pub fragment: u16,
    /// What the packet carries.
    pub payload: Vec<u8>,
    /// Type and code of an ICMP error, in the place of an echo's.
    pub error: Option<[u8; 2]>,
}

/// The segment that begins a TCP connection.
pub fn syn(src: &str, dst: &str) -> Packet {
    Packet::tcp(src, dst, flag::SYN)
}

/// An ICMP error about a packet, as a router on its way would send it: the packet's headers and the first bytes of
/// what it carries. `code` is type and code.
pub fn icmp_error(src: &str, code: [u8; 2], about: &Packet) -> Vec<u8> {
    let quoted = &about.frame()[14..];
    let mut error = Packet::ping("0.0.0.0:0", "0.0.0.0:0");
    error.dst = SocketAddr::new(about.src.ip(), 0);
    error.src = SocketAddr::new(src.parse().unwrap_or(about.src.ip()), 0);
    error.error = Some(code);
    error.payload = quoted[..quoted.len().min(64)].to_vec();
    error.frame()
}

impl Packet {
    fn new(src: &str, dst: &str, transport: Transport) -> Self {
        let parse = |text: &str| text.parse().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        Self {
            src: parse(src),
            dst: parse(dst),
            transport,
            ttl: 64,
            options: 0,
            fragment: 0,
            payload: b"payload of odd length".to_vec(),
            error: None,
        }
    }

    /// A TCP segment.
    pub fn tcp(src: &str, dst: &str, flags: u8) -> Self {
        Self::new(src, dst, Transport::Tcp(flags))
    }

    /// A UDP datagram.
    pub fn udp(src: &str, dst: &str) -> Self {
        Self::new(src, dst, Transport::Udp(true))
    }

    /// An SCTP packet that begins an association (INIT).
    pub fn sctp(src: &str, dst: &str) -> Self {
        Self::new(src, dst, Transport::Sctp(1))
    }

    /// An echo request; the source's port is the identifier.
    pub fn ping(src: &str, dst: &str) -> Self {
        Self::new(src, dst, Transport::Echo(false))
    }

    /// An echo reply; the source's port is the identifier.
    pub fn pong(src: &str, dst: &str) -> Self {
        Self::new(src, dst, Transport::Echo(true))
    }

    /// With another time to live.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// The frame, with right checksums.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = DESTINATION_MAC.to_vec();
        frame.extend([0x0f; 6]);
        let l4 = self.segment();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00]);
                let length = 20 + self.options;
                let mut ip = vec![0x40 | (length / 4) as u8, 0];
                ip.extend(((length + l4.len()) as u16).to_be_bytes());
                ip.extend([0x12, 0x34]);
                ip.extend(self.fragment.to_be_bytes());
                ip.extend([self.ttl, self.protocol(), 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(vec![1; self.options]);
                let sum = checksum(&ip, 0);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((l4.len() as u16).to_be_bytes());
                frame.extend([self.protocol(), self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            _ => {}
        }
        frame.extend(l4);
        frame
    }

    /// The packet as two fragments (RFC 791 section 3.2, RFC 8200 section 4.5), the first with this many bytes, a
    /// multiple of eight, above IP.
    pub fn fragments(&self, first: usize) -> [Vec<u8>; 2] {
        let whole = self.frame();
        if self.src.is_ipv4() {
            let (head, body) = whole.split_at(34);
            let fragment = |body: &[u8], field: u16| {
                let mut frame = [head, body].concat();
                frame[16..18].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
                frame[20..22].copy_from_slice(&field.to_be_bytes());
                frame[24..26].fill(0);
                let sum = checksum(&frame[14..34], 0);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                frame
            };
            [fragment(&body[..first], 0x2000), fragment(&body[first..], first as u16 / 8)]
        } else {
            let (head, body) = whole.split_at(54);
            let fragment = |body: &[u8], field: u16| {
                let [high, low] = field.to_be_bytes();
                let mut frame = [head, &[self.protocol(), 0, high, low, 0, 0, 0x12, 0x34], body].concat();
                frame[18..20].copy_from_slice(&((8 + body.len()) as u16).to_be_bytes());
                frame[20] = 44;
                frame
            };
            [fragment(&body[..first], 1), fragment(&body[first..], first as u16)]
        }
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => 6,
            Transport::Udp(_) => 17,
            Transport::Sctp(_) => 132,
            Transport::Echo(_) if self.src.is_ipv4() => 1,
            Transport::Echo(_) => 58,
        }
    }

    fn segment(&self) -> Vec<u8> {
        let (sport, dport) = (self.src.port().to_be_bytes(), self.dst.port().to_be_bytes());
        let mut l4 = Vec::new();
        match self.transport {
            Transport::Tcp(flags) => {
                l4.extend(sport);
                l4.extend(dport);
                l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Transport::Udp(_) => {
                l4.extend(sport);
                l4.extend(dport);
                l4.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                l4.extend([0, 0]);
            }
            Transport::Sctp(chunk) => {
                l4.extend(sport);
                l4.extend(dport);
                l4.extend([0, 0, 0, 7, 0, 0, 0, 0, chunk, 0]);
                l4.extend(((4 + self.payload.len()) as u16).to_be_bytes());
            }
            Transport::Echo(reply) => {
                let kind = match (self.src.is_ipv4(), reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                l4.extend([kind, 0, 0, 0]);
                l4.extend(sport);
                l4.extend([0, 1]);
            }
        }
        if let Some([kind, code]) = self.error {
            (l4[0], l4[1]) = (kind, code);
            // The next hop's MTU, where it is told.
            l4[4..8].copy_from_slice(&1280_u32.to_be_bytes());
        }
        l4.extend(&self.payload);
        let place = match self.transport {
            Transport::Tcp(_) => 16,
            Transport::Udp(false) => return l4,
            Transport::Udp(true) => 6,
            Transport::Sctp(_) => {
                let sum = crc32c(&l4);
                l4[8..12].copy_from_slice(&sum.to_le_bytes());
                return l4;
            }
            Transport::Echo(_) => 2,
        };
        let sum = checksum(&l4, pseudo(self.src.ip(), self.dst.ip(), self.protocol(), l4.len()));
        l4[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        l4
    }
}

/// Two fragments as [`Packet::fragments`] makes them, put together again.
pub fn reassemble(first: &[u8], second: &[u8]) -> Vec<u8> {
    if first[12..14] == [0x08, 0x00] {
        let mut frame = [first, &second[34..]].concat();
        let length = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[20..22].fill(0);
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    } else {
        let mut frame = [&first[..54], &first[62..], &second[62..]].concat();
        let length = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame[20] = first[54];
        frame
    }
}

/// The sum over the pseudo-header; nothing for ICMP over IPv4, which has none.
fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> u32 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    if protocol == 1 {
        return 0;
    }
    let addresses = [octets(src), octets(dst)].concat();
    addresses.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>()
        + u32::from(protocol)
        + length as u32
}

/// RFC 9260 appendix A, over a packet whose checksum is all zeroes.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

/// Whether a transport header has the checksum it should have, or none where it may.
fn has_right_checksum(protocol: u8, l4: &[u8], src: IpAddr, dst: IpAddr) -> bool {
    if protocol == 132 {
        let mut clean = l4.to_vec();
        clean[8..12].fill(0);
        return l4[8..12] == crc32c(&clean).to_le_bytes();
    }
    let absent = protocol == 17 && l4[6..8] == [0, 0];
    absent || checksum(l4, pseudo(src, dst, protocol, l4.len())) == 0
}

fn checksum(bytes: &[u8], start: u32) -> u16 {
    let pairs =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum = start + pairs.sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A frame as text: `10.244.1.2:4000 > 10.244.1.3:8080 TCP S ttl 64`, with a complaint for each wrong checksum.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        let (src, dst, protocol, ttl, l4): (IpAddr, IpAddr, u8, u8, &[u8]) = match frame[12..14] {
            [0x08, 0x00] => {
                let length = usize::from(frame[14] & 0xf) * 4;
                if checksum(&frame[14..14 + length], 0) != 0 {
                    f.write_str("WRONG IP CHECKSUM ")?;
                }
                let ip = |at: usize| IpAddr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
                (ip(26), ip(30), frame[23], frame[22], &frame[14 + length..])
            }
            [0x86, 0xdd] => {
                let ip = |at: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&frame[at..at + 16]);
                    IpAddr::from(octets)
                };
                (ip(22), ip(38), frame[20], frame[21], &frame[54..])
            }
            _ => return write!(f, "not IP"),
        };
        if !has_right_checksum(protocol, l4, src, dst) {
            f.write_str("WRONG CHECKSUM ")?;
        }
        let number = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
        if let (1, 3 | 11) | (58, 1..=4) = (protocol, l4[0]) {
            let kind = if let (1, 3) | (58, 1) = (protocol, l4[0]) { "unreachable" } else { "error" };
            write!(f, "{src} > {dst} ICMP {kind} code {} ttl {ttl}", l4[1])?;
            return quoted(f, &l4[8..]);
        }
        let (sport, dport) =
            if matches!(protocol, 1 | 58) { (number(4), number(4)) } else { (number(0), number(2)) };
        let (src, dst) = (SocketAddr::new(src, sport), SocketAddr::new(dst, dport));
        let name = match protocol {
            6 if l4[13] & flag::RST != 0 => "TCP reset",
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => "ICMP",
        };
        write!(f, "{src} > {dst} {name} ttl {ttl}")
    }
}

/// What an ICMP error quotes: ` about 10.0.0.1:1 > 10.0.0.2:2`.
fn quoted(f: &mut fmt::Formatter<'_>, packet: &[u8]) -> fmt::Result {
    if packet.len() < if packet[0] >> 4 == 4 { 28 } else { 48 } {
        return f.write_str(" about what is cut short");
    }
    let (src, dst, protocol, l4): (IpAddr, IpAddr, u8, &[u8]) = if packet[0] >> 4 == 4 {
        if checksum(&packet[..20], 0) != 0 {
            f.write_str(" WRONG QUOTED CHECKSUM")?;
        }
        let ip = |at: usize| IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        (ip(12), ip(16), packet[9], &packet[20..])
    } else {
        let ip = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&packet[at..at + 16]);
            IpAddr::from(octets)
        };
        (ip(8), ip(24), packet[6], &packet[40..])
    };
    let number = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let (sport, dport) =
        if matches!(protocol, 1 | 58) { (number(4), number(4)) } else { (number(0), number(2)) };
    write!(f, " about {} > {}", SocketAddr::new(src, sport), SocketAddr::new(dst, dport))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_as_it_was_built() {
        let cases = [
            (Packet::tcp("10.0.0.1:1", "10.0.0.2:2", flag::SYN), "10.0.0.1:1 > 10.0.0.2:2 TCP ttl 64"),
            (Packet::udp("[fd00::1]:1", "[fd00::2]:2").ttl(9), "[fd00::1]:1 > [fd00::2]:2 UDP ttl 9"),
            (Packet::ping("10.0.0.1:7", "10.0.0.2:7"), "10.0.0.1:7 > 10.0.0.2:7 ICMP ttl 64"),
            (
                Packet { options: 8, ..Packet::udp("10.0.0.1:1", "10.0.0.2:2") },
                "10.0.0.1:1 > 10.0.0.2:2 UDP ttl 64",
            ),
        ];
        for (packet, text) in cases {
            assert_eq!(Shown(&packet.frame()).to_string(), text);
            if packet.options == 0 {
                let [first, second] = packet.fragments(8);
                assert_eq!(Shown(&reassemble(&first, &second)).to_string(), text);
            }
        }
        let mut wrong = Packet::tcp("10.0.0.1:1", "10.0.0.2:2", flag::SYN).frame();
        wrong[30] ^= 1;
        assert_eq!(
            Shown(&wrong).to_string(),
            "WRONG IP CHECKSUM WRONG CHECKSUM 10.0.0.1:1 > 11.0.0.2:2 TCP ttl 64"
        );
    }
}
