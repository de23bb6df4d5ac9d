//! A name server over HTTPS (RFC 8484): HTTP/2 over TLS.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use tokio_rustls::TlsAcceptor;

use super::bed::{server_config, world};

/// What a server does besides answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing.
    Usual,
    /// It ends each connection after an answer.
    Ends,
    /// It has no answers: 503.
    Overloaded,
    /// It answers with a page for people.
    Page,
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Https {
    manner: Manner,
    connections: Arc<AtomicUsize>,
    /// Host and path of each request.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Https {
    /// Answers at this address as long as the process lives, with a certificate for these names; writes that of the authority
    /// that vouches for it.
    pub(crate) fn start(address: &str, names: &[&str], ca_file: &Path, manner: Manner) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(names, ca_file, &["h2"])));
        let server = Self { manner, connections: Arc::default(), requests: Arc::default() };
        let (listener, served) = (TcpListener::bind(address).unwrap(), server.clone());
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(served.clone().serve(acceptor.clone(), stream));
                }
            });
        });
        server
    }

    async fn serve(self, acceptor: TlsAcceptor, stream: tokio::net::TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        // Whoever does not trust the certificate goes.
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(self.clone().answer(request, respond));
            if self.manner == Manner::Ends {
                connection.graceful_shutdown();
            }
        }
    }

    async fn answer(self, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.method, Method::POST);
        assert_eq!(head.headers["content-type"], "application/dns-message");
        self.requests.lock().unwrap().push(format!("{}{}", head.uri.host().unwrap(), head.uri.path()));
        let mut query = Vec::new();
        while let Some(Ok(part)) = body.data().await {
            query.extend_from_slice(&part);
        }
        assert_eq!(query[..2], [0, 0], "an id would keep answers from being kept on the way");
        let Some(answer) = world(&query, true, &AtomicUsize::new(0)) else { return };
        let (status, kind, answer) = match self.manner {
            Manner::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", b"later".to_vec()),
            Manner::Page => (StatusCode::OK, "text/html", b"<p>Welcome!</p>".to_vec()),
            Manner::Usual | Manner::Ends => (StatusCode::OK, "application/dns-message", answer),
        };
        let head = Response::builder().status(status).header("content-type", kind).body(()).unwrap();
        // Whoever has gone gets none.
        if let Ok(mut stream) = respond.send_response(head, false) {
            let _ = stream.send_data(answer.into(), true);
        }
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Host and path of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
