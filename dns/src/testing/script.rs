//! Upstreams that do what a test says, byte for byte.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, rdata::A},
};

use super::framing::framed;

/// Serves each connection on a thread; `serve` gets its number, from 0 on. Gives how many there were.
pub(crate) fn over_tcp(
    address: &str,
    serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(address).unwrap();
    let (count, serve) = (Arc::new(AtomicUsize::new(0)), Arc::new(serve));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            let number = counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(number, stream));
        }
    });
    count
}

/// Serves all queries on one thread.
pub(crate) fn over_udp(
    address: &str,
    mut serve: impl FnMut(&UdpSocket, Vec<u8>, SocketAddr) + Send + 'static,
) {
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            serve(&socket, buffer[..length].to_vec(), client);
        }
    });
}

/// Sends a message; whoever has closed the connection does not get it.
pub(crate) fn write(stream: &mut TcpStream, message: &[u8]) {
    let _ = stream.write_all(&framed(message));
}

/// The name that a query is about.
pub(crate) fn name(query: &[u8]) -> String {
    Message::from_vec(query).unwrap().queries[0].name().to_ascii()
}

/// An answer to a query: the address 192.0.2.`octet`.
pub(crate) fn answer(query: &[u8], octet: u8) -> Vec<u8> {
    let asked = Message::from_vec(query).unwrap();
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
    let question = asked.queries[0].clone();
    let address = RData::A(A::new(192, 0, 2, octet));
    answer.add_answer(Record::from_rdata(question.name().clone(), 300, address));
    answer.add_query(question);
    answer.to_vec().unwrap()
}

/// The answer to a query that there is no such name.
pub(crate) fn denial(query: &[u8]) -> Vec<u8> {
    let asked = Message::from_vec(query).unwrap();
    let mut answer = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
    answer.metadata.response_code = ResponseCode::NXDomain;
    answer.add_query(asked.queries[0].clone());
    answer.to_vec().unwrap()
}
