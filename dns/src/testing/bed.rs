//! A network namespace with a running server in it, an upstream to forward to, and `dig`.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use nix::sched::{CloneFlags, unshare};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

use super::framing::framed;
use crate::{Configurator, DnsConfig, DnsError, Publisher, Server};

/// Runs a test in a network namespace of its own, with `lo` up.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command, which must succeed; gives what it printed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) publisher: Publisher,
    pub(crate) registry: prometheus::Registry,
    pub(crate) configurator: Configurator,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), DnsError>>>,
    runtime: Runtime,
}

impl Running {
    /// Starts one in the caller's namespace.
    pub(crate) fn start(config: DnsConfig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = Server::bind(config).unwrap();
        let registry = prometheus::Registry::new();
        server.register_metrics(&registry).unwrap();
        let (publisher, configurator) = (server.publisher(), server.configurator());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = runtime.spawn(server.run(async { drop(stopped.await) }));
        Self { publisher, configurator, registry, stop: Some(stop), task: Some(task), runtime }
    }

    /// Ends it and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        if let (Some(stop), Some(task)) = (self.stop.take(), self.task.take()) {
            drop(stop);
            let ended =
                self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(8), task).await });
            ended.expect("ends in time").unwrap().unwrap();
        }
    }

    /// The value of a counter whose printed form starts so.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// A name server of the world outside.
pub(crate) struct World {
    queries: Arc<AtomicUsize>,
    over_tcp: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    server_names: Arc<Mutex<Vec<Option<String>>>>,
}

impl World {
    /// Answers at this address as long as the process lives, which is the test's.
    pub(crate) fn start(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let (udp, tcp) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
        let queries = Arc::new(AtomicUsize::new(0));
        let count = queries.clone();
        let seen = Arc::new(AtomicUsize::new(0));
        let seen_udp = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let udp = udp.try_clone().unwrap();
                let query = buffer[..length].to_vec();
                let seen = seen_udp.clone();
                std::thread::spawn(move || {
                    if let Some(answer) = world(&query, false, &seen) {
                        udp.send_to(&answer, client).unwrap();
                    }
                });
            }
        });
        let count = queries.clone();
        let over_tcp = Arc::new(AtomicUsize::new(0));
        let tcp_count = over_tcp.clone();
        let connections = Arc::new(AtomicUsize::new(0));
        let tcp_connections = connections.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                tcp_connections.fetch_add(1, Ordering::SeqCst);
                let (mut stream, seen) = (stream.unwrap(), seen.clone());
                let (count, tcp_count) = (count.clone(), tcp_count.clone());
                std::thread::spawn(move || {
                    answer_stream(
                        &mut stream,
                        || {
                            count.fetch_add(1, Ordering::SeqCst);
                            tcp_count.fetch_add(1, Ordering::SeqCst);
                        },
                        &seen,
                    );
                });
            }
        });
        Self { queries, over_tcp, connections, server_names: Arc::default() }
    }

    /// The same over TLS, with a certificate for these names that a new authority vouches for; writes the
    /// authority's certificate.
    pub(crate) fn start_tls(address: &str, names: &[&str], ca_file: &Path) -> Self {
        let config = server_config(names, ca_file, &[]);
        let (config, tcp) = (Arc::new(config), TcpListener::bind(address).unwrap());
        let world = Self {
            queries: Arc::default(),
            over_tcp: Arc::default(),
            connections: Arc::default(),
            server_names: Arc::default(),
        };
        let (queries, connections) = (world.over_tcp.clone(), world.connections.clone());
        let server_names = world.server_names.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
                let (queries, server_names) = (queries.clone(), server_names.clone());
                std::thread::spawn(move || {
                    if stream.conn.complete_io(&mut stream.sock).is_err() {
                        return;
                    }
                    server_names.lock().unwrap().push(stream.conn.server_name().map(str::to_owned));
                    answer_stream(
                        &mut stream,
                        || {
                            queries.fetch_add(1, Ordering::SeqCst);
                        },
                        &AtomicUsize::new(0),
                    );
                });
            }
        });
        world
    }

    /// How many TCP connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Whom those over TLS asked for.
    pub(crate) fn server_names(&self) -> Vec<Option<String>> {
        self.server_names.lock().unwrap().clone()
    }

    /// How many of them came over TCP.
    pub(crate) fn over_tcp(&self) -> usize {
        self.over_tcp.load(Ordering::SeqCst)
    }

    /// How many queries came.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

/// A certificate for these names that a new authority vouches for, whose own is written to a file; and the protocols that are
/// spoken above TLS.
pub(crate) fn server_config(names: &[&str], ca_file: &Path, protocols: &[&str]) -> rustls::ServerConfig {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(ca_file, certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let own = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Answers the queries of a connection until it ends.
fn answer_stream(stream: &mut (impl std::io::Read + std::io::Write), counted: impl Fn(), seen: &AtomicUsize) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        counted();
        if let Some(answer) = world(&query, true, seen) {
            stream.write_all(&framed(&answer)).and_then(|()| stream.flush()).unwrap();
        }
    }
}

/// What the world outside says. `seen`: how often it was asked for a name that it only answers once.
pub(crate) fn world(query: &[u8], tcp: bool, seen: &AtomicUsize) -> Option<Vec<u8>> {
    let asked = Message::from_vec(query).unwrap();
    let question = asked.queries[0].clone();
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.edns = asked.edns.clone();
    let name = question.name().clone();
    answer.add_query(question.clone());
    let mut add = |name: &Name, data: RData| {
        answer.add_answer(Record::from_rdata(name.clone(), 300, data));
    };
    let www: Name = "www.example.org.".parse().unwrap();
    match (name.to_lowercase().to_ascii().as_str(), question.query_type()) {
        ("www.example.org.", RecordType::A) => add(&name, RData::A(rdata::A::new(192, 0, 2, 80))),
        ("www.example.org.", RecordType::AAAA) => {
            add(&name, RData::AAAA(rdata::AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80)));
        }
        ("v4.example.org.", RecordType::A) => add(&name, RData::A(rdata::A::new(192, 0, 2, 83))),
        ("v4.example.org.", _) => {}
        ("alias.example.org.", RecordType::A) => {
            add(&name, RData::CNAME(rdata::CNAME(www.clone())));
            add(&www, RData::A(rdata::A::new(192, 0, 2, 80)));
        }
        ("big.example.org.", RecordType::A) if !tcp => answer.metadata.truncation = true,
        ("big.example.org.", RecordType::A) => {
            (0..200).for_each(|n| add(&name, RData::A(rdata::A::new(192, 0, 2, n))));
        }
        ("mail.example.org.", RecordType::MX) => {
            for host in ["mx-1.example.org.", "mx-two.example.org.", "mx-3.example.net."] {
                add(&name, RData::MX(rdata::MX::new(10, host.parse().unwrap())));
            }
        }
        ("slow.example.org.", RecordType::A) => {
            std::thread::sleep(Duration::from_millis(300));
            add(&name, RData::A(rdata::A::new(192, 0, 2, 81)));
        }
        ("once.example.org.", RecordType::A) if seen.fetch_add(1, Ordering::SeqCst) == 0 => {
            add(&name, RData::A(rdata::A::new(192, 0, 2, 82)));
        }
        ("once.example.org." | "silent.example.org.", _) => return None,
        ("odd.example.org.", RecordType::Unknown(65400)) => {
            let data = rdata::NULL::with(b"odd".to_vec());
            add(&name, RData::Unknown { code: RecordType::Unknown(65400), rdata: data });
        }
        (name, _) if name.starts_with("www") && !name.ends_with("corp.test.") => {}
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    if answer.answers.is_empty() && !answer.metadata.truncation {
        let soa = rdata::SOA::new(www.clone(), www.clone(), 1, 2, 3, 4, 60);
        answer.add_authority(Record::from_rdata("example.org.".parse().unwrap(), 60, RData::SOA(soa)));
    }
    Some(answer.to_vec().unwrap())
}
