//! A D-Bus client, as much as asking systemd takes: calls strictly in turn and signals, over one unix socket.
//!
//! Values are encoded and decoded by zbus, without its connections: those start threads, and the container's process has
//! one until it has forked its sandbox. Every wait has an end. D-Bus Specification: "Authentication Protocol", "Message
//! Protocol", "Server Addresses".

use std::collections::VecDeque;
use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, to_bytes};
use zbus::{DynamicType, Signature, Type, Variant};

/// The bus itself.
const BUS: Target<'static> =
    Target { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

/// What systemd says in one message is far below.
const MAX_MESSAGE: usize = 16 << 20;
const MAX_LINE: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub(super) enum DbusError {
    #[error("{0:?} is not the address of a unix socket")]
    Address(String),
    #[error("Cannot connect to {place}")]
    Connect { place: String, source: io::Error },
    #[error("the authentication was refused: {0:?}")]
    Refused(String),
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the connection was closed")]
    Closed,
    #[error("Cannot exchange messages")]
    Io(#[source] io::Error),
    #[error("a message does not parse")]
    Malformed(#[source] zbus::Error),
    #[error("a message is of a strange shape: {0}")]
    Strange(String),
    #[error("{message} ({name})")]
    Reply { name: String, message: String },
}

impl DbusError {
    /// Whether it is an error reply of this name.
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Reply { name, .. } if name == wanted)
    }

    /// Whether nobody listens.
    pub(super) fn is_absent(&self) -> bool {
        let absent = [IoKind::NotFound, IoKind::ConnectionRefused];
        matches!(self, Self::Connect { source, .. } if absent.contains(&source.kind()))
    }
}

/// A socket, and whether a bus is behind it or the one peer itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    place: Place,
    bus: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    pub(super) fn peer(path: &Path) -> Self {
        Self { place: Place::Path(path.into()), bus: false }
    }

    pub(super) fn bus(path: &Path) -> Self {
        Self { place: Place::Path(path.into()), bus: true }
    }

    /// The first unix socket of a list of addresses, such as `unix:path=/run/dbus/system_bus_socket`.
    pub(super) fn parse(text: &str) -> Result<Self, DbusError> {
        let unix = text.split(';').filter_map(|address| address.strip_prefix("unix:"));
        let place = unix.flat_map(|keys| keys.split(',')).find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = unescape(value)?;
            match key {
                "path" => Some(Place::Path(PathBuf::from(String::from_utf8(value).ok()?))),
                "abstract" => Some(Place::Abstract(value)),
                _ => None,
            }
        });
        Ok(Self { place: place.ok_or_else(|| DbusError::Address(text.into()))?, bus: true })
    }

    pub(super) fn is_bus(&self) -> bool {
        self.bus
    }

    fn connect(&self, patience: Duration) -> Result<UnixStream, DbusError> {
        let connect = || {
            let address = match &self.place {
                Place::Path(path) => SocketAddrUnix::new(path),
                Place::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
            }?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // A listener that accepts nothing would hold a connection off for ever.
            set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
            connect(&socket, &address)?;
            Ok(UnixStream::from(socket))
        };
        connect()
            .map_err(|error: rustix::io::Errno| DbusError::Connect { place: self.to_string(), source: error.into() })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match first {
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                (u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, tail)
            }
            other => (*other, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    Some(bytes)
}

/// Whose method is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    /// The longest wait of one step.
    patience: Duration,
    serial: u32,
    received: Vec<u8>,
    /// Those that came before their time.
    signals: VecDeque<Message>,
}

impl Connection {
    pub(super) fn open(address: &Address, patience: Duration) -> Result<Self, DbusError> {
        let mut connection = Self::over(address.connect(patience)?, patience);
        connection.authenticate()?;
        if address.bus {
            connection.call(&BUS, "Hello", &())?;
        }
        Ok(connection)
    }

    pub(super) fn over(socket: UnixStream, patience: Duration) -> Self {
        Self { socket, patience, serial: 0, received: Vec::new(), signals: VecDeque::new() }
    }

    /// EXTERNAL without a name: who this is tell the socket's credentials, in a user namespace, too.
    ///
    /// All of it at once, as systemd's own clients do: systemd does not look at a message that it reads together with
    /// BEGIN before the next one comes.
    fn authenticate(&mut self) -> Result<(), DbusError> {
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut line = self.read_line()?;
        if line == "DATA" || line.starts_with("DATA ") {
            line = self.read_line()?;
        }
        if line == "OK" || line.starts_with("OK ") { Ok(()) } else { Err(DbusError::Refused(line)) }
    }

    pub(super) fn read_line(&mut self) -> Result<String, DbusError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = self.received.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| DbusError::Strange("a line is not text".into()));
            }
            if self.received.len() > MAX_LINE {
                return Err(DbusError::Strange("a line has no end".into()));
            }
            self.fill(deadline)?;
        }
    }

    #[cfg(test)]
    pub(super) fn has_unread(&self) -> bool {
        !self.received.is_empty()
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), DbusError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(DbusError::Silent(self.patience));
        }
        self.socket.set_read_timeout(Some(left)).map_err(DbusError::Io)?;
        let mut chunk = [0; 4096];
        match self.socket.read(&mut chunk) {
            Ok(0) => Err(DbusError::Closed),
            Ok(count) => {
                self.received.extend(chunk.iter().take(count));
                Ok(())
            }
            Err(error) => match error.kind() {
                IoKind::Interrupted => Ok(()),
                IoKind::WouldBlock | IoKind::TimedOut => Err(DbusError::Silent(self.patience)),
                IoKind::ConnectionReset => Err(DbusError::Closed),
                _ => Err(DbusError::Io(error)),
            },
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DbusError> {
        self.socket.set_write_timeout(Some(self.patience)).map_err(DbusError::Io)?;
        self.socket.write_all(bytes).map_err(|error| match error.kind() {
            IoKind::WouldBlock | IoKind::TimedOut => DbusError::Silent(self.patience),
            IoKind::BrokenPipe | IoKind::ConnectionReset => DbusError::Closed,
            _ => DbusError::Io(error),
        })
    }

    /// Sends a message; answers its serial number.
    pub(super) fn send<B: Serialize + DynamicType>(
        &mut self,
        kind: u8,
        fields: Vec<Field>,
        body: &B,
    ) -> Result<u32, DbusError> {
        self.serial += 1;
        let bytes = encode(kind, self.serial, fields, body).map_err(DbusError::Malformed)?;
        self.write(&bytes)?;
        Ok(self.serial)
    }

    pub(super) fn next(&mut self, deadline: Instant) -> Result<Message, DbusError> {
        loop {
            if let Some(message) = Message::take(&mut self.received)? {
                return Ok(message);
            }
            self.fill(deadline)?;
        }
    }

    /// Calls a method and waits for its reply.
    pub(super) fn call<B: Serialize + DynamicType>(
        &mut self,
        target: &Target<'_>,
        member: &str,
        body: &B,
    ) -> Result<Message, DbusError> {
        let text = |code, text: &str| (code, Value::Plain(Variant::from(text.to_owned())));
        let path = zbus::ObjectPath::try_from(target.path.to_owned()).map_err(DbusError::Malformed)?;
        let fields = vec![
            (field::PATH, Value::Plain(Variant::from(path))),
            text(field::DESTINATION, target.destination),
            text(field::INTERFACE, target.interface),
            text(field::MEMBER, member),
        ];
        let serial = self.send(kind::CALL, fields, body)?;
        let deadline = Instant::now() + self.patience;
        loop {
            let message = self.next(deadline)?;
            match message.kind {
                kind::SIGNAL => self.signals.push_back(message),
                kind::RETURN if message.reply_to == Some(serial) => return Ok(message),
                kind::ERROR if message.reply_to == Some(serial) => {
                    let text = message.body::<(String,)>().map(|(text,)| text).unwrap_or_default();
                    return Err(DbusError::Reply { name: message.error.unwrap_or_default(), message: text });
                }
                _ => {}
            }
        }
    }

    /// Has a bus pass signals on.
    pub(super) fn subscribe(&mut self, rule: &str) -> Result<(), DbusError> {
        self.call(&BUS, "AddMatch", &(rule,)).map(|_| ())
    }

    /// Waits for a signal.
    pub(super) fn signal<T>(&mut self, mut wanted: impl FnMut(&Message) -> Option<T>) -> Result<T, DbusError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.next(deadline)?,
            };
            if message.kind == kind::SIGNAL
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }
}

/// Kinds of messages.
pub(super) mod kind {
    pub(in super::super) const CALL: u8 = 1;
    pub(in super::super) const RETURN: u8 = 2;
    pub(in super::super) const ERROR: u8 = 3;
    pub(in super::super) const SIGNAL: u8 = 4;
}

/// Codes of header fields.
pub(super) mod field {
    pub(in super::super) const PATH: u8 = 1;
    pub(in super::super) const INTERFACE: u8 = 2;
    pub(in super::super) const MEMBER: u8 = 3;
    pub(in super::super) const ERROR: u8 = 4;
    pub(in super::super) const REPLY_TO: u8 = 5;
    pub(in super::super) const DESTINATION: u8 = 6;
    pub(in super::super) const SIGNATURE: u8 = 8;
}

pub(super) type Field = (u8, Value);

/// A header field's value.
#[derive(Debug)]
pub(super) enum Value {
    Plain(Variant<'static>),
    /// A signature of several values: a `Variant` would write it in parentheses.
    Signature(String),
}

impl Type for Value {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::Signature(text) => {
                let mut variant = serializer.serialize_struct("Variant", 2)?;
                variant.serialize_field("signature", &Signature::Signature)?;
                variant.serialize_field("value", text)?;
                variant.end()
            }
        }
    }
}

fn encode<B: Serialize + DynamicType>(
    kind: u8,
    serial: u32,
    mut fields: Vec<Field>,
    body: &B,
) -> Result<Vec<u8>, zbus::Error> {
    let context = Context::new(Endian::Little, 0);
    let signature = body.signature().to_string_no_parens();
    let body = if signature.is_empty() { Vec::new() } else { to_bytes(context, body)?.bytes().to_vec() };
    if !signature.is_empty() {
        fields.push((field::SIGNATURE, Value::Signature(signature)));
    }
    let length = u32::try_from(body.len()).map_err(|_| zbus::Error::OutOfBounds)?;
    let header = (b'l', kind, 0_u8, 1_u8, length, serial, fields);
    let mut bytes = to_bytes(context, &header)?.bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    Ok(bytes)
}

/// What was received.
#[derive(Debug)]
pub(super) struct Message {
    pub kind: u8,
    #[cfg_attr(not(test), expect(dead_code, reason = "who answers needs it"))]
    pub serial: u32,
    pub path: String,
    pub interface: String,
    pub member: String,
    pub reply_to: Option<u32>,
    error: Option<String>,
    signature: String,
    body: Data<'static, 'static>,
}

impl Message {
    /// Takes the first message out of a buffer, once it is there as a whole.
    fn take(buffer: &mut Vec<u8>) -> Result<Option<Self>, DbusError> {
        let Some(start) = buffer.first_chunk::<16>() else { return Ok(None) };
        let endian = match start[0] {
            b'l' => Endian::Little,
            b'B' => Endian::Big,
            other => return Err(DbusError::Strange(format!("its byte order is {other}"))),
        };
        let number = |at: usize| {
            let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
            let number = if endian == Endian::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
            usize::try_from(number).ok().filter(|number| *number <= MAX_MESSAGE)
        };
        let too_long = || DbusError::Strange("it is too long".into());
        let body = number(4).ok_or_else(too_long)?;
        let head = (16 + number(12).ok_or_else(too_long)?).next_multiple_of(8);
        if buffer.len() < head + body {
            return Ok(None);
        }
        let rest = buffer.split_off(head + body);
        let mut bytes = std::mem::replace(buffer, rest);
        let body = bytes.split_off(head);
        let context = Context::new(endian, 0);
        let header = Data::new(bytes, context);
        let parsed = header.deserialize::<(u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'_>)>)>();
        let (_, kind, _, version, _, serial, fields) = parsed.map_err(DbusError::Malformed)?.0;
        if version != 1 {
            return Err(DbusError::Strange(format!("its version is {version}")));
        }
        let mut message = Self {
            kind,
            serial,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            reply_to: None,
            error: None,
            signature: String::new(),
            body: Data::new(body, context),
        };
        for (code, value) in fields {
            match (code, value) {
                (field::PATH, Variant::ObjectPath(path)) => message.path = path.to_string(),
                (field::INTERFACE, Variant::Str(text)) => message.interface = text.to_string(),
                (field::MEMBER, Variant::Str(text)) => message.member = text.to_string(),
                (field::ERROR, Variant::Str(text)) => message.error = Some(text.to_string()),
                (field::REPLY_TO, Variant::U32(serial)) => message.reply_to = Some(serial),
                (field::SIGNATURE, Variant::Signature(signature)) => {
                    message.signature = signature.to_string_no_parens()
                }
                _ => {}
            }
        }
        Ok(Some(message))
    }

    /// Its arguments.
    pub(super) fn body<'a, T: Deserialize<'a> + Type>(&'a self) -> Result<T, DbusError> {
        let wanted = T::SIGNATURE.to_string_no_parens();
        if self.signature != wanted {
            let text = format!("{} has the arguments {:?} where {wanted:?} was expected", self.member, self.signature);
            return Err(DbusError::Strange(text));
        }
        Ok(self.body.deserialize().map_err(DbusError::Malformed)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_unix_sockets_are_found_in_a_list() {
        let path = Address::parse("unix:path=/run/a%20b/bus,guid=12").expect("valid");
        assert_eq!(path, Address::bus(Path::new("/run/a b/bus")));
        let abstract_name = Address::parse("tcp:host=x;unix:abstract=/tmp/dbus-1").expect("valid");
        assert_eq!(abstract_name.to_string(), "@/tmp/dbus-1");
        for wrong in ["", "unix:", "unix:tmpdir=/tmp", "tcp:host=x,port=1", "unix:path=%4"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_what_the_specification_says() {
        let fields = vec![(field::MEMBER, Value::Plain(Variant::from("Hello")))];
        let bytes = encode(kind::CALL, 7, fields, &("a", 5_u32)).expect("encodes");
        let mut expected = b"l\x01\0\x01\x0c\0\0\0\x07\0\0\0\x18\0\0\0".to_vec();
        expected.extend(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0\x08\x01g\0\x02su\0");
        expected.extend(b"\x01\0\0\0a\0\0\0\x05\0\0\0");
        assert_eq!(bytes, expected);
        let mut buffer = bytes.clone();
        buffer.extend(&bytes[..20]);
        let message = Message::take(&mut buffer).expect("valid").expect("whole");
        assert_eq!((message.kind, message.serial, message.member.as_str()), (kind::CALL, 7, "Hello"));
        assert_eq!(message.body::<(String, u32)>().expect("valid"), ("a".into(), 5));
        assert!(message.body::<(String,)>().is_err());
        assert!(Message::take(&mut buffer).expect("valid so far").is_none());
        assert_eq!(buffer, bytes[..20]);
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        for wrong in [&b"x\x01\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0"[..], b"l\x01\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0"] {
            assert!(Message::take(&mut wrong.to_vec()).is_err());
        }
        let mut short = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x03\x01s\0\xff\0\0\0".to_vec();
        assert!(Message::take(&mut short).is_err());
    }
}
