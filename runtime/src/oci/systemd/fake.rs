//! A systemd for tests: one conversation over a socket, in which every call is written down.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use zbus::{ObjectPath, OwnedVariant, Variant};

use super::dbus::{Address, Connection, DbusError, Field, Message, Value, field, kind};
use super::{MANAGER, Manager, PATH};

/// How it answers StartTransientUnit, StopUnit and SetUnitProperties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Temper {
    /// The job's end is told before, after and beside the ends of others.
    Good,
    /// The job ends in this way.
    Ends(&'static str),
    /// An error reply of this name, the first so many times.
    Refuses(&'static str, usize),
    /// Nothing is said.
    Silent,
    /// The connection is refused in authentication.
    Rejects,
    /// Nothing is said from the start.
    Deaf,
}

/// Listens in a folder and serves one connection; answers what was asked.
pub(in super::super) fn serve(socket: &Path, temper: Temper) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("listens");
    let (asked, calls) = channel();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("accepts");
        let mut fake = Fake { bus: Connection::over(socket, Duration::from_secs(20)), temper, asked, refused: 0 };
        // It ends when the other side hangs up.
        let _ = fake.run();
    });
    calls
}

/// A conversation with one that does what is asked.
pub(in super::super) fn manager(dir: &Path) -> (Manager, Receiver<String>) {
    let socket = dir.join("private");
    let calls = serve(&socket, Temper::Good);
    (Manager::at(&Address::peer(&socket), Duration::from_secs(20)).expect("talks"), calls)
}

struct Fake {
    bus: Connection,
    temper: Temper,
    asked: Sender<String>,
    refused: usize,
}

impl Fake {
    fn run(&mut self) -> Result<(), DbusError> {
        assert_eq!(self.bus.read_line()?, "\0AUTH EXTERNAL");
        match self.temper {
            Temper::Rejects => return self.bus.write(b"REJECTED KERBEROS_V4\r\n"),
            Temper::Deaf => loop {
                self.bus.read_line()?;
            },
            _ => assert_eq!((self.bus.read_line()?, self.bus.read_line()?), ("DATA".into(), "BEGIN".into())),
        }
        assert!(!self.bus.has_unread(), "no message may be read with BEGIN");
        self.bus.write(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n")?;
        loop {
            let message = self.bus.next(Instant::now() + Duration::from_secs(20))?;
            assert_eq!(message.kind, kind::CALL);
            self.answer(&message)?;
        }
    }

    fn answer(&mut self, call: &Message) -> Result<(), DbusError> {
        let job = ObjectPath::try_from("/org/freedesktop/systemd1/job/7").expect("valid");
        let text = match call.member.as_str() {
            "Hello" => return self.reply(call, &(":1.1",)),
            "Get" => {
                let (interface, name) = call.body::<(&str, &str)>()?;
                assert_eq!((call.path.as_str(), interface), (PATH, MANAGER));
                let value = if name == "Version" { "252.38-1~deb12u1" } else { "/user.slice/manager.service" };
                return self.reply(call, &(Variant::from(value),));
            }
            "AddMatch" | "ResetFailedUnit" => call.body::<(String,)>()?.0,
            "Subscribe" => String::new(),
            "StartTransientUnit" => {
                type Body = (String, String, Vec<(String, OwnedVariant)>, Vec<(String, Vec<(String, OwnedVariant)>)>);
                let (unit, mode, properties, others) = call.body::<Body>()?;
                assert!(others.is_empty());
                format!("{unit} {mode}{}", listed(&properties))
            }
            "SetUnitProperties" => {
                let (unit, runtime, properties) = call.body::<(String, bool, Vec<(String, OwnedVariant)>)>()?;
                format!("{unit} {runtime}{}", listed(&properties))
            }
            "StopUnit" => {
                let (unit, mode) = call.body::<(&str, &str)>()?;
                format!("{unit} {mode}")
            }
            other => panic!("{other} is called"),
        };
        let _ = self.asked.send(format!("{} {text}", call.member).trim().to_owned());
        if !matches!(call.member.as_str(), "StartTransientUnit" | "StopUnit" | "SetUnitProperties") {
            return self.reply(call, &());
        }
        match self.temper {
            Temper::Refuses(name, times) if self.refused < times => {
                self.refused += 1;
                let fields = vec![
                    (field::ERROR, Value::Plain(Variant::from(name))),
                    (field::REPLY_TO, Value::Plain(Variant::from(call.serial))),
                ];
                return self.bus.send(kind::ERROR, fields, &("it is not wanted",)).map(|_| ());
            }
            Temper::Silent => return Ok(()),
            _ => {}
        }
        if call.member == "SetUnitProperties" {
            return self.reply(call, &());
        }
        let result = if let Temper::Ends(result) = self.temper { result } else { "done" };
        // The end of a short job is told before it is known which one it is.
        self.removed("/org/freedesktop/systemd1/job/6", "canceled")?;
        if self.temper == Temper::Good {
            self.removed(job.as_str(), result)?;
            return self.reply(call, &(job,));
        }
        self.reply(call, &(&job,))?;
        self.removed("/org/freedesktop/systemd1/job/8", "timeout")?;
        self.removed(job.as_str(), result)
    }

    fn reply<B: serde::Serialize + zbus::DynamicType>(&mut self, call: &Message, body: &B) -> Result<(), DbusError> {
        let fields: Vec<Field> = vec![(field::REPLY_TO, Value::Plain(Variant::from(call.serial)))];
        self.bus.send(kind::RETURN, fields, body).map(|_| ())
    }

    fn removed(&mut self, job: &str, result: &str) -> Result<(), DbusError> {
        let plain = |text: &str| Value::Plain(Variant::from(text.to_owned()));
        let path = |text: &str| ObjectPath::try_from(text.to_owned()).expect("valid");
        let fields = vec![
            (field::PATH, Value::Plain(Variant::from(path(PATH)))),
            (field::INTERFACE, plain(MANAGER)),
            (field::MEMBER, plain("JobRemoved")),
        ];
        self.bus.send(kind::SIGNAL, fields, &(7_u32, path(job), "some.scope", result)).map(|_| ())
    }
}

fn listed(properties: &[(String, OwnedVariant)]) -> String {
    properties.iter().map(|(name, value)| format!(" {name}={}", &**value)).collect()
}
