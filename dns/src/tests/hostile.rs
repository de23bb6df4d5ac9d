//! Clients and upstreams that mean no good: whatever they do, the others are answered, and soon.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hickory_proto::{op::Message, rr::RecordType::A};
use sluice_model::Changes;

use super::{V4, addresses, cluster, config, listening, served};
use crate::{
    CacheConfig, DnsConfig, ForwardOptions, Upstreams,
    testing::{
        bed::{Running, eventually, in_namespace, sh},
        framing::{framed, read_framed},
        script, *,
    },
};

const NAME: &str = "web.default.svc.cluster.local.";
/// How long a good client waits for one answer at the most, on a machine that does much besides.
const SOON: Duration = Duration::from_secs(1);

/// The one answer that a connection gets to a good question, if it gets one in time.
fn ask_over(stream: &mut TcpStream) -> Option<Message> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&framed(&question(NAME, A))).ok()?;
    Message::from_vec(&read_framed(stream)?).ok()
}

/// A client who asks over UDP and over TCP for as long as it lives, from 127.0.0.9, and whose every question must be answered
/// soon.
struct GoodClient {
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
    /// Tells how late the machine is.
    clock: JoinHandle<Duration>,
}

/// So often on its way from a client's thread to the server's, and back, a question waits for a processor.
const TURNS: u32 = 8;

/// How late a thread gets a processor at the most that wants one now and then.
fn lateness(is_over: &AtomicBool) -> Duration {
    let (pause, mut latest) = (Duration::from_millis(2), Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        std::thread::sleep(pause);
        latest = latest.max(start.elapsed().saturating_sub(pause));
    }
    latest
}

impl GoodClient {
    fn start() -> Self {
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (asked.clone(), is_over.clone());
        let thread = Some(std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.connect(V4).unwrap();
                // What floods the device takes away is the network's loss; a client asks again.
                let answered = (0..3).any(|_| {
                    socket.send(&question(NAME, A)).unwrap();
                    let mut buffer = [0; 512];
                    let length = socket.recv(&mut buffer);
                    length
                        .is_ok_and(|length| Message::from_vec(&buffer[..length]).unwrap().answers.len() == 1)
                });
                assert!(answered, "no answer over UDP after {} that came", count.load(Ordering::Relaxed));
                longest = longest.max(start.elapsed());
                let is_answered = (0..2).any(|_| {
                    let answer = from("127.0.0.9").and_then(|mut stream| ask_over(&mut stream));
                    answer.is_some_and(|answer| answer.answers.len() == 1)
                });
                assert!(is_answered, "no answer over TCP");
                count.fetch_add(1, Ordering::Relaxed);
            }
            longest
        }));
        let over = is_over.clone();
        let clock = std::thread::spawn(move || lateness(&over));
        Self { asked, is_over, thread, clock }
    }

    /// Waits until it was answered so often.
    fn was_answered(&self, times: usize) {
        let before = self.asked.load(Ordering::Relaxed);
        eventually("the good client is answered", || {
            let asked = self.asked.load(Ordering::Relaxed) - before;
            asked >= times || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
        });
        assert!(self.asked.load(Ordering::Relaxed) >= before + times, "the good client has given up");
    }

    /// How long it waited at the most, what a machine takes that has too much to do left aside.
    fn end(mut self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        let longest = self.thread.take().unwrap().join().unwrap();
        longest.saturating_sub(TURNS * self.clock.join().unwrap())
    }
}

/// A connection from this address, if it can be had.
fn from(address: &str) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address.parse().unwrap(), 0).into()).unwrap();
    let server: SocketAddr = V4.parse().unwrap();
    socket.connect_timeout(&server.into(), SOON).ok()?;
    Some(socket.into())
}

#[test]
fn slow_connections_beyond_all_bounds_keep_nobody_out() {
    in_namespace(|| {
        let (running, _world) = served(config());
        let query = framed(&question(NAME, A));
        // Up to what one client may hold, and past it: half a length, a length, half a question, nothing.
        let mut held: Vec<TcpStream> = (0..200).filter_map(|_| from("127.0.0.2")).collect();
        for (n, stream) in held.iter_mut().enumerate() {
            // One that was closed at once takes nothing any more.
            let _ = stream.write_all(&query[..n % query.len()]);
        }
        eventually("those past the bound are closed", || {
            let closed = held.iter().filter(|stream| {
                stream.set_nonblocking(true).unwrap();
                matches!(stream.peek(&mut [0]), Ok(0) | Err(_)) && !is_open(stream)
            });
            closed.count() == 200 - 128
        });
        let good = GoodClient::start();
        good.was_answered(20);
        // Many clients, up to what the server holds, all of them dripping a byte now and then.
        for client in 10..17 {
            held.extend((0..127).filter_map(|_| from(&format!("127.0.0.{client}"))));
        }
        held.iter_mut().for_each(|stream| drop(stream.write_all(&[0])));
        good.was_answered(20);
        let longest = good.end();
        assert!(longest < SOON, "{longest:?}");
        assert_eq!(running.metric("coredns_panics_total"), 0.0);
    });
}

/// Whether the other end has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn rubbish_on_connections_ends_those_and_no_others() {
    in_namespace(|| {
        let (running, _world) = served(config());
        let good = GoodClient::start();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let hostile = std::thread::spawn(move || {
            let mut seed = 1_u32;
            while !over.load(Ordering::Relaxed) {
                let Some(mut stream) = from("127.0.0.2") else { continue };
                let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
                let rubbish: Vec<u8> = (0..3000)
                    .map(|_| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (seed >> 24) as u8
                    })
                    .collect();
                // Messages of that length, and bytes that are none; questions in between.
                let all = [framed(&question(NAME, A)).repeat(5), framed(&rubbish), rubbish].concat();
                let _ = stream.write_all(&all);
            }
        });
        good.was_answered(40);
        is_over.store(true, Ordering::Relaxed);
        hostile.join().unwrap();
        let longest = good.end();
        assert!(longest < SOON, "{longest:?}");
        assert_eq!(running.metric("coredns_panics_total"), 0.0);
    });
}

#[test]
fn pointers_in_circles_and_answers_to_nobody_are_passed_over() {
    in_namespace(|| {
        let (running, _world) = served(config());
        let good = GoodClient::start();
        let head = |flags: u8, counts: [u8; 4]| {
            let [a, b, c, d] = counts;
            vec![0x12, 0x34, flags, 0, 0, a, 0, b, 0, c, 0, d]
        };
        let plain = &question(NAME, A)[12..];
        let circle = [0xc0, 12, 0, 1, 0, 1];
        let rings = [
            // A name that points to itself; to its middle; two that point to each other; one beyond the end.
            [&head(1, [1, 0, 0, 0])[..], &circle].concat(),
            [&head(1, [1, 0, 0, 0])[..], b"\x03abc\xc0\x0c\0\x01\0\x01"].concat(),
            [&head(1, [1, 0, 0, 0])[..], b"\xc0\x0e\xc0\x0c\0\x01\0\x01"].concat(),
            [&head(1, [1, 0, 0, 0])[..], b"\xff\xff\0\x01\0\x01"].concat(),
            // In the owner of an additional record, where an OPT would be.
            [&head(1, [1, 0, 0, 1])[..], plain, b"\xc0\x2a\0\x29\x10\0\0\0\0\0\0\0"].concat(),
            // Answers that nobody asked for, of which some look like those of an upstream.
            [&head(0x81, [1, 1, 0, 0])[..], plain, b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x06\x06\x06\x06"]
                .concat(),
            [&head(0x85, [1, 0, 0, 0])[..], plain].concat(),
        ];
        let socket = UdpSocket::bind("127.0.0.53:5353").unwrap();
        socket.connect(V4).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        for _ in 0..500 {
            for ring in &rings {
                // The buffer may be full; that is part of it.
                let _ = socket.send(ring);
            }
        }
        let mut stream = from("127.0.0.2").unwrap();
        for ring in &rings {
            stream.write_all(&framed(ring)).unwrap();
        }
        assert_eq!(ask_over_last(&mut stream).answers.len(), 1, "the connection goes on");
        let mut buffer = [0; 512];
        while let Ok(length) = socket.recv(&mut buffer) {
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            let code = u16::from(answer.metadata.response_code);
            assert!(matches!(code, 0 | 1), "{answer}");
        }
        good.was_answered(20);
        let longest = good.end();
        assert!(longest < SOON, "{longest:?}");
        // What was said to be an answer is no answer to anybody.
        let said = sh("dig +short @10.96.0.10 web.default.svc.cluster.local");
        assert_eq!(said, "10.96.0.20\n");
        assert_eq!(running.metric("coredns_panics_total"), 0.0);
    });
}

/// The last of the answers on a connection, which is the one to a good question.
fn ask_over_last(stream: &mut TcpStream) -> Message {
    let mut last = ask_over(stream).expect("an answer");
    while last.answers.is_empty() {
        last = Message::from_vec(&read_framed(stream).unwrap()).unwrap();
    }
    last
}

#[test]
fn a_flood_of_outside_names_with_dead_upstreams_leaves_the_cluster_answered() {
    in_namespace(|| {
        addresses();
        // They take everything and say nothing.
        let dead: Vec<_> =
            (1..=2).map(|n| UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 50 + n), 53)).unwrap()).collect();
        let upstreams =
            Upstreams::Addresses(dead.iter().map(|socket| socket.local_addr().unwrap()).collect());
        let running = Running::start(DnsConfig { upstreams, ..listening(config()) });
        running.publisher.publish(&snapshot(cluster()), &Changes::everything());
        let good = GoodClient::start();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let flood = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
            socket.connect(V4).unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut sent = 0_u32;
            let mut told = [0_u32; 16];
            let mut buffer = [0; 512];
            while !over.load(Ordering::Relaxed) {
                let name = format!("n{sent}.random-{}.example.org.", sent.wrapping_mul(2_654_435_761));
                let _ = socket.send(&question(&name, A));
                sent += 1;
                if sent.is_multiple_of(100) {
                    // As fast as a pod might, not as fast as a test on two busy cores could: 20,000 a second.
                    std::thread::sleep(Duration::from_millis(5));
                }
                while socket.recv(&mut buffer).is_ok() {
                    told[usize::from(buffer[3] & 0xf)] += 1;
                }
            }
            (sent, told)
        });
        good.was_answered(40);
        eventually("more than may be under way", || {
            running.metric("coredns_forward_max_concurrent_rejects_total") > 100.0
        });
        good.was_answered(20);
        is_over.store(true, Ordering::Relaxed);
        let (sent, told) = flood.join().unwrap();
        let longest = good.end();
        assert!(longest < SOON, "{longest:?} beside {sent} others");
        // Refused at once, or SERVFAIL when the time was up: nothing else.
        let others: u32 =
            told.iter().enumerate().filter(|(code, _)| !matches!(code, 2 | 5)).map(|(_, n)| n).sum();
        assert!(told[5] > 100 && others == 0, "{told:?}");
        assert_eq!(running.metric("coredns_panics_total"), 0.0);
    });
}

#[test]
fn forged_answers_to_our_own_questions_are_not_believed() {
    in_namespace(|| {
        let (running, world) = served(config());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        // Somebody who knows the question, and guesses port and id, from the upstream's host but not its port, and from another.
        let forger = std::thread::spawn(move || {
            let sockets =
                [UdpSocket::bind("127.0.0.53:54").unwrap(), UdpSocket::bind("127.0.0.66:53").unwrap()];
            let question = question("slow.example.org.", A);
            let record = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\x06\x06\x06\x06";
            let mut forged = [&question[..], record].concat();
            forged[2] = 0x81;
            forged[7] = 1;
            let mut guess = 0_u32;
            while !over.load(Ordering::Relaxed) {
                guess = guess.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                forged[..2].copy_from_slice(&((guess >> 8) as u16).to_be_bytes());
                for port in (32_768..61_000_u16).step_by(499) {
                    for socket in &sockets {
                        let _ = socket.send_to(&forged, ("127.0.0.1", port));
                    }
                }
            }
        });
        for _ in 0..3 {
            assert_eq!(sh("dig +short +tries=1 +timeout=3 @10.96.0.10 slow.example.org"), "192.0.2.81\n");
        }
        is_over.store(true, Ordering::Relaxed);
        forger.join().unwrap();
        assert!(world.queries() >= 1);
        assert_eq!(running.metric("coredns_panics_total"), 0.0);
    });
}

#[test]
fn of_what_the_upstream_itself_sends_only_the_answer_is_believed() {
    let others = |query: &[u8]| {
        let mut other_id = script::answer(query, 66);
        other_id[0] ^= 0x80;
        let mut other_name = script::answer(query, 66);
        // A letter of the question, and so of the name that the record has.
        other_name[13] ^= 1;
        let mut other_type = script::answer(query, 66);
        let type_at = query.windows(5).position(|part| part == b"\0\0\x01\0\x01").unwrap() + 2;
        other_type[type_at] = 28;
        [other_id, other_name, other_type, query.to_vec(), query[..2].to_vec()]
    };
    for force_tcp in [false, true] {
        in_namespace(move || {
            addresses();
            script::over_udp("127.0.0.53:53", move |socket, query, client| {
                // What cannot be read is taken for a part, and fetched over TCP.
                for other in &others(&query)[..3] {
                    socket.send_to(other, client).unwrap();
                }
                socket.send_to(&script::answer(&query, 7), client).unwrap();
            });
            script::over_tcp("127.0.0.53:53", move |number, mut stream| {
                while let Some(query) = read_framed(&mut stream) {
                    // An id of its own is only passed over; another question under this id is the end of the attempt.
                    let others = others(&query);
                    script::write(&mut stream, &others[0]);
                    if let Some(other) = others.get(number + 1) {
                        script::write(&mut stream, other);
                    }
                    script::write(&mut stream, &script::answer(&query, 7));
                }
            });
            let upstreams = Upstreams::Addresses(vec!["127.0.0.53:53".parse().unwrap()]);
            let cache = CacheConfig { enabled: false, ..CacheConfig::default() };
            let forward = ForwardOptions { force_tcp, ..ForwardOptions::default() };
            let running = Running::start(DnsConfig { upstreams, forward, cache, ..listening(config()) });
            running.publisher.publish(&snapshot(cluster()), &Changes::everything());
            for _ in 0..3 {
                let printed = sh("dig +short +tries=1 +timeout=5 @10.96.0.10 www.example.org");
                assert_eq!(printed, "192.0.2.7\n");
            }
            assert_eq!(running.metric("coredns_panics_total"), 0.0);
        });
    }
}

#[test]
fn a_query_under_way_takes_little_memory() {
    let fixture = Fixture::new(&config());
    let message = question(NAME, A);
    let query = crate::query::Query::read(&message).unwrap();
    let asked = crate::message::Question::of(&query);
    let later = fixture.handler.later(&message, UDP, 0);
    let resolver = fixture.handler.routes.of(&query.name).clone();
    let ask = resolver.chain.ask(&asked);
    // Thousands may be: what they seldom need is in boxes.
    let sizes = [std::mem::size_of_val(&later), std::mem::size_of_val(&ask)];
    assert!(sizes[0] <= 2048 && sizes[1] <= 1024, "{sizes:?}");
}
