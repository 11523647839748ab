//! HTTP/1.1, as far as clients of registries use it (RFC 9112).

use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::read_line;

/// The longest body of a request.
const MAX_BODY: usize = 1 << 20;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As in the address.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether it came over https.
    pub secure: bool,
}

impl Request {
    pub(crate) fn read(reader: &mut impl BufRead, secure: bool) -> io::Result<Self> {
        let first = read_line(reader)?;
        let mut words = first.split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut headers = Vec::new();
        loop {
            let line = read_line(reader)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut request = Self { method, path, query, headers, body: String::new(), secure };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap_or(usize::MAX));
        if length > MAX_BODY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        reader.take(length as u64).read_to_string(&mut request.body)?;
        Ok(request)
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query or of a form, decoded.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = if self.method == "POST" { &self.body } else { &self.query };
        let mut pairs = pairs.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| decode(value))
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits);
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer, right or wrong.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// What it says its length is.
    length: Option<u64>,
    endless: bool,
    stalls: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = Some(body.len() as u64);
        Self { status, headers: Vec::new(), body, length, endless: false, stalls: false }
    }

    /// A registry's error.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": message}]});
        Self::new(status, body.to_string()).header("Content-Type", "application/json")
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Another body; the length is said as before.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Breaks off after so many bytes of the body.
    #[must_use]
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    /// Says no length: the body ends with the connection.
    #[must_use]
    pub const fn without_length(mut self) -> Self {
        self.length = None;
        self
    }

    /// Repeats the body for ever.
    #[must_use]
    pub const fn endless(mut self) -> Self {
        self.endless = true;
        self.without_length()
    }

    /// Says nothing more after so many bytes of the body, for as long as the server lives.
    #[must_use]
    pub fn stall_after(self, bytes: usize) -> Self {
        Self { stalls: true, ..self.cut_after(bytes) }
    }

    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.length.is_some_and(|length| length > self.body.len() as u64)
    }

    pub(crate) fn write(&self, stream: &mut impl Write, over: &AtomicBool) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = self.length {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        while self.endless && !over.load(Ordering::Acquire) {
            stream.write_all(&self.body)?;
        }
        stream.flush()?;
        while self.stalls && !over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
