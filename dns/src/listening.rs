//! An address that is listened on: its threads for UDP, its acceptor for TCP, and their end.

use std::{
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use socket2::Socket;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    DnsError,
    handler::HandlerSlot,
    metrics::Metrics,
    server::Busy,
    socket::{Keeping, Sockets, leave_group},
    tcp::Acceptor,
    udp::Worker,
};

/// An address that is listened on. Dropped, it takes no more queries; its threads answer what has arrived.
pub(crate) struct Listening {
    stop: Arc<AtomicBool>,
    sockets: Vec<Arc<Socket>>,
    threads: Vec<JoinHandle<()>>,
    keeping: Keeping,
    /// Its end is the acceptor's.
    _acceptor: oneshot::Sender<()>,
}

impl Listening {
    /// Starts to answer. Needs a tokio runtime.
    pub(crate) fn start(
        sockets: Sockets,
        handler: &HandlerSlot,
        metrics: &Metrics,
        busy: &Busy,
        keeping: &Keeping,
    ) -> Result<Self, DnsError> {
        let Sockets { address, udp, tcp } = sockets;
        let failed = |source| DnsError::Socket { call: "epoll_ctl", address, protocol: "tcp", source };
        let listener = TcpListener::from_std(tcp.into()).map_err(failed)?;
        let counters = metrics.listener(address, "tcp");
        let (acceptor, stopped) = oneshot::channel();
        tokio::spawn(Acceptor::new(handler.clone(), counters, busy.clone()).run(listener, stopped));
        let mut this = Self {
            stop: Arc::default(),
            sockets: udp.into_iter().map(Arc::new).collect(),
            threads: Vec::new(),
            keeping: keeping.clone(),
            _acceptor: acceptor,
        };
        for socket in &this.sockets {
            let worker = Worker {
                socket: socket.clone(),
                handler: handler.clone(),
                listener: metrics.listener(address, "udp"),
                runtime: tokio::runtime::Handle::current(),
                stop: this.stop.clone(),
                busy: busy.clone(),
            };
            let thread = std::thread::Builder::new()
                .name("dns-udp".to_owned())
                .spawn(|| worker.run())
                .map_err(|source| DnsError::Thread { address, source })?;
            this.threads.push(thread);
        }
        Ok(this)
    }

    /// Takes no more queries; gives the threads, which return once they have answered what has arrived.
    pub(crate) fn stop(mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.threads)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.keeping.is_kept() {
            // What comes from now on waits in the sockets, for a successor that gets them. The threads look up now and
            // then.
            return;
        }
        for socket in &self.sockets {
            // What comes from now on is a successor's, where there is one; and the thread is woken. That the
            // socket is not connected, which the kernel complains of, is no matter.
            leave_group(socket);
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}
