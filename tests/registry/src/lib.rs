//! A registry for tests, on the loopback device, over http and https.
//!
//! [`Server`] speaks HTTP and remembers what it was asked; what it answers is up to a function. [`Content`] answers as a
//! registry does, [`Guard`] stands before it and demands a token or a password; a test puts its own function around them
//! for what a registry should never do. [`Authority`] makes certificates.
//!
//! Each connection has a thread of its own and carries one request.

mod authority;
mod content;
mod guard;
mod message;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub use authority::{Authority, Certified};
pub use content::{Content, digest};
pub use guard::{Demand, Guard, PASSWORD, USER};
pub use message::{Answer, Request};

/// What the first byte of a connection is that speaks TLS.
const TLS_HANDSHAKE: u8 = 0x16;

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// Lives as long as this.
pub struct Server {
    address: SocketAddr,
    inner: Arc<Inner>,
    listening: Option<JoinHandle<()>>,
}

struct Inner {
    tls: Option<Arc<ServerConfig>>,
    handler: Box<Handler>,
    log: Mutex<Vec<Request>>,
    over: AtomicBool,
}

impl Server {
    /// Listens at a free port. With a certificate it speaks https alone, but is also a proxy that leads to itself.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (log, over) = (Mutex::default(), AtomicBool::new(false));
        let inner = Arc::new(Inner { tls, handler: Box::new(handler), log, over });
        let listening = {
            let inner = Arc::clone(&inner);
            std::thread::spawn(move || inner.listen(&listener))
        };
        Ok(Self { address, inner, listening: Some(listening) })
    }

    /// The registry's part of a reference: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.inner.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::Release);
        // It looks at the flag when somebody comes.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

impl Inner {
    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let inner = Arc::clone(self);
            // A client that goes away is no failure: the client's test sees what it got.
            std::thread::spawn(move || inner.serve(stream));
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut first = [0];
        let speaks_tls = stream.peek(&mut first)? == 1 && first == [TLS_HANDSHAKE];
        if speaks_tls {
            return self.serve_tls(stream);
        }
        let mut reader = BufReader::new(stream);
        let request = Request::read(&mut reader, false)?;
        let mut stream = reader.into_inner();
        if request.method == "CONNECT" {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            return self.serve_tls(stream);
        }
        let answer = if self.tls.is_some() {
            Answer::new(400, "Client sent an HTTP request to an HTTPS server.")
        } else {
            self.answer(request)
        };
        answer.write(&mut stream, &self.over)?;
        finish(&stream)
    }

    fn serve_tls(&self, stream: TcpStream) -> io::Result<()> {
        let tls = self.tls.clone().ok_or(io::ErrorKind::InvalidData)?;
        let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let request = Request::read(&mut reader, true)?;
        let mut stream = reader.into_inner();
        let answer = self.answer(request);
        let cut = answer.is_cut();
        answer.write(&mut stream, &self.over)?;
        if !cut {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        finish(&stream.sock)
    }

    fn answer(&self, request: Request) -> Answer {
        let answer = (self.handler)(&request);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        answer
    }
}

/// Ends a connection so that nothing that was sent is lost: closing with bytes unread would reset it.
fn finish(mut stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Reads a line without its end; an error at the end of the stream.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    let got = reader.by_ref().take(64 << 10).read_line(&mut line)?;
    if got == 0 || !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
