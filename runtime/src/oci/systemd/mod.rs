//! The systemd cgroup driver: systemd makes the container's cgroup as a unit, a scope as a rule, and owns it.
//!
//! One short conversation for each of `create`, `update` and `delete`, with the system's manager or, without privileges,
//! with the user's. runc's conventions hold for the names and properties of units
//! (org.freedesktop.systemd1(5), systemd.resource-control(5)).

mod dbus;
#[cfg(test)]
pub(super) mod fake;
mod properties;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zbus::{ObjectPath, Variant};

use crate::{Error, ErrorKind, ResultExt};
use dbus::{Address, Connection, DbusError, Message, Target};
pub(super) use properties::{Property, of_annotations, of_resources};

/// What systemd gets for each step; runc's figure.
const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// A container's unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    name: String,
    slice: String,
    /// Whether it is the user's manager's.
    user: bool,
}

impl Unit {
    /// From `linux.cgroupsPath`, which is `slice:prefix:name`.
    pub(super) fn parse(path: Option<&str>, id: &str, user: bool) -> Result<Self, Error> {
        let (slice, prefix, name) = match path.filter(|path| !path.is_empty()) {
            None => ("", "runc", id),
            Some(text) => {
                let parts: Vec<&str> = text.split(':').collect();
                let [slice, prefix, name] = parts[..] else {
                    let text =
                        format!("linux.cgroupsPath {text:?} is not slice:prefix:name, as --systemd-cgroup wants it");
                    return Err(Error::new(ErrorKind::Invalid, text));
                };
                (slice, prefix, name)
            }
        };
        let slice = match (slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        };
        expand_slice(slice)?;
        let name = if name.ends_with(".slice") {
            expand_slice(name)?;
            name.to_owned()
        } else {
            format!("{prefix}-{name}.scope")
        };
        Ok(Self { name, slice: slice.to_owned(), user })
    }

    /// A scope of this name in the same slice.
    pub(super) fn beside(&self, name: &str) -> Self {
        Self { name: format!("{name}.scope"), ..self.clone() }
    }

    pub(super) fn is_user(&self) -> bool {
        self.user
    }

    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Where it is below the manager's own group.
    fn place(&self) -> Result<PathBuf, Error> {
        if self.is_slice() {
            return expand_slice(&self.name);
        }
        Ok(expand_slice(&self.slice)?.join(&self.name))
    }
}

/// A slice's place: its name tells the slices that it is in.
fn expand_slice(slice: &str) -> Result<PathBuf, Error> {
    let wrong = || Error::new(ErrorKind::Invalid, format!("linux.cgroupsPath names {slice:?}, which is no slice"));
    let stem = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.contains('/') {
            return Err(wrong());
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

/// Whether the manager to ask is the user's: of one whom the system's would not obey, as it seems from a user namespace.
pub(super) fn is_users() -> bool {
    let owner = |path: &str| std::fs::metadata(path).map_or(0, |found| found.uid());
    !rustix::process::geteuid().is_root() || owner("/run/systemd") != 0
}

/// A conversation with systemd.
#[derive(Debug)]
pub(super) struct Manager {
    bus: Connection,
    version: u32,
}

impl Manager {
    pub(super) fn open(user: bool) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let addresses = if user { user_addresses(variable) } else { system_addresses(variable) };
        let addresses = addresses.kind(ErrorKind::Invalid, || "Cannot find systemd".into())?;
        Self::first(&addresses, user, PATIENCE)
    }

    /// Talks to the first that is there.
    fn first(addresses: &[Address], user: bool, patience: Duration) -> Result<Self, Error> {
        let mut failure = None;
        for address in addresses {
            match Self::at(address, patience) {
                Ok(manager) => return Ok(manager),
                Err(error) if is_no_systemd(&error) => {}
                Err(error) => failure = failure.or(Some((address, error))),
            }
        }
        let who = if user { "the user's systemd" } else { "systemd" };
        if let Some((address, error)) = failure {
            return Err(error).context(|| format!("Cannot talk to {who} by {address}"));
        }
        let places: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let places = if places.is_empty() { "XDG_RUNTIME_DIR is not set".into() } else { places.join(", ") };
        let text = format!("--systemd-cgroup needs systemd, and {who} does not run here ({places})");
        Err(Error::new(ErrorKind::Unsupported, text))
    }

    fn at(address: &Address, patience: Duration) -> Result<Self, DbusError> {
        let mut bus = Connection::open(address, patience)?;
        if address.is_bus() {
            bus.subscribe(&format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'"))?;
            // It says so when this has been done before.
            match bus.call(&manager(), "Subscribe", &()) {
                Err(error @ DbusError::Reply { .. }) if is_no_systemd(&error) => return Err(error),
                Ok(_) | Err(DbusError::Reply { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut manager = Self { bus, version: 0 };
        let text = manager.property(PATH, MANAGER, "Version")?;
        manager.version = version(&text).ok_or_else(|| DbusError::Strange(format!("systemd's version is {text:?}")))?;
        Ok(manager)
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String, DbusError> {
        let target = Target { destination: NAME, path, interface: "org.freedesktop.DBus.Properties" };
        let reply = self.bus.call(&target, "Get", &(interface, name))?;
        match reply.body::<(Variant<'_>,)>()?.0 {
            Variant::Str(text) => Ok(text.to_string()),
            other => Err(DbusError::Strange(format!("{name} is {other:?}"))),
        }
    }

    /// Has a unit made, with a process in it and more properties, and answers where its group is.
    pub(super) fn start(&mut self, unit: &Unit, pid: i32, more: Vec<Property>) -> Result<PathBuf, Error> {
        let failed = || format!("Cannot have systemd make {}", unit.name);
        let base = self.property(PATH, MANAGER, "ControlGroup").context(failed)?;
        let properties = properties::of_unit(unit, pid, more);
        let started = match self.start_once(unit, &properties) {
            Err(error) if error.is("org.freedesktop.systemd1.UnitExists") => {
                // It may be the rest of one that failed.
                self.reset(unit);
                self.start_once(unit, &properties)
            }
            other => other,
        };
        match started {
            Ok(result) if result == "done" => Ok(Path::new(base.trim_start_matches('/')).join(unit.place()?)),
            Ok(result) => {
                self.reset(unit);
                Err(Error::new(ErrorKind::Internal, format!("{}: its job ended as {result:?}", failed())))
            }
            Err(error) => {
                self.reset(unit);
                Err(error).context(failed)
            }
        }
    }

    fn start_once(&mut self, unit: &Unit, properties: &Vec<Property>) -> Result<String, DbusError> {
        let others: Vec<(String, Vec<Property>)> = Vec::new();
        let body = (unit.name.as_str(), "replace", properties, others);
        let reply = self.bus.call(&manager(), "StartTransientUnit", &body)?;
        self.job(&reply)
    }

    /// Waits for a job's end; answers its result.
    fn job(&mut self, reply: &Message) -> Result<String, DbusError> {
        let job = reply.body::<(ObjectPath<'_>,)>()?.0;
        self.bus.signal(|signal| {
            if signal.interface != MANAGER || signal.member != "JobRemoved" {
                return None;
            }
            let (_, path, _, result) = signal.body::<(u32, ObjectPath<'_>, String, String)>().ok()?;
            (path == job).then_some(result)
        })
    }

    /// Sets properties until the unit is gone.
    pub(super) fn set(&mut self, unit: &Unit, properties: &Vec<Property>) -> Result<(), Error> {
        if properties.is_empty() {
            return Ok(());
        }
        let body = (unit.name.as_str(), true, properties);
        let set = self.bus.call(&manager(), "SetUnitProperties", &body);
        set.map(|_| ()).context(|| format!("Cannot have systemd change {}", unit.name))
    }

    /// Ends a unit, with the processes that are in it.
    pub(super) fn stop(&mut self, unit: &Unit) -> Result<(), Error> {
        let asked = self.bus.call(&manager(), "StopUnit", &(unit.name.as_str(), "replace"));
        let stopped = match asked.and_then(|reply| self.job(&reply)) {
            Err(error) if error.is("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
            other => other.map(|_| ()),
        };
        self.reset(unit);
        stopped.context(|| format!("Cannot have systemd stop {}", unit.name))
    }

    /// Has systemd forget a unit that failed; of no effect on another.
    fn reset(&mut self, unit: &Unit) {
        let _ = self.bus.call(&manager(), "ResetFailedUnit", &(unit.name.as_str(),));
    }
}

fn manager() -> Target<'static> {
    Target { destination: NAME, path: PATH, interface: MANAGER }
}

/// Nobody listens, or a bus that knows of no systemd.
fn is_no_systemd(error: &DbusError) -> bool {
    let unknown = ["ServiceUnknown", "NameHasNoOwner", "Spawn.ServiceNotFound"];
    error.is_absent() || unknown.iter().any(|name| error.is(&format!("org.freedesktop.DBus.Error.{name}")))
}

/// systemd's own socket needs no bus.
fn system_addresses(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Address>, DbusError> {
    match variable("DBUS_SYSTEM_BUS_ADDRESS") {
        Some(text) => Ok(vec![Address::parse(&text)?]),
        None => Ok(vec![Address::peer(Path::new(PRIVATE)), Address::bus(Path::new(SYSTEM_BUS))]),
    }
}

fn user_addresses(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Address>, DbusError> {
    let run = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let private = run.as_ref().map(|run| Address::peer(&run.join("systemd/private")));
    let bus = match variable("DBUS_SESSION_BUS_ADDRESS") {
        Some(text) => Some(Address::parse(&text)?),
        None => run.map(|run| Address::bus(&run.join("bus"))),
    };
    Ok(private.into_iter().chain(bus).collect())
}

/// The number at the head of `252.38-1~deb12u1` or `v245`.
fn version(text: &str) -> Option<u32> {
    let text = text.trim_start_matches('v');
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::fake::{Temper, serve};
    use super::*;

    /// What was asked of a fake systemd, and what came of it.
    fn talk<T>(temper: Temper, bus: bool, talk: impl FnOnce(&mut Manager) -> T) -> (Result<T, Error>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("private");
        let calls: Receiver<String> = serve(&socket, temper);
        let address = if bus { Address::bus(&socket) } else { Address::peer(&socket) };
        let opened = Manager::first(&[address], false, Duration::from_millis(500));
        let result = opened.map(|mut manager| talk(&mut manager));
        (result, calls.iter().collect())
    }

    fn scope() -> Unit {
        Unit::parse(Some("machine.slice:libpod:box"), "id", false).expect("valid")
    }

    fn limits() -> Vec<Property> {
        vec![("MemoryMax".into(), Variant::from(5_u64))]
    }

    #[test]
    fn paths_are_slice_prefix_and_name() {
        let unit = |path, user| Unit::parse(path, "box", user).map(|unit| (unit.name, unit.slice));
        let both = |name: &str, slice: &str| Some((name.to_owned(), slice.to_owned()));
        assert_eq!(unit(None, false).ok(), both("runc-box.scope", "system.slice"));
        assert_eq!(unit(Some(""), true).ok(), both("runc-box.scope", "user.slice"));
        assert_eq!(unit(Some("a-b.slice:libpod:x"), false).ok(), both("libpod-x.scope", "a-b.slice"));
        assert_eq!(unit(Some(":docker:x"), false).ok(), both("docker-x.scope", "system.slice"));
        assert_eq!(unit(Some("a.slice::a-b.slice"), false).ok(), both("a-b.slice", "a.slice"));
        for wrong in ["/box", "a:b", "a.slice:b:c:d", "a:b:c", "a/b.slice:b:c", ".slice:b:c", "a--b.slice:b:c"] {
            assert_eq!(unit(Some(wrong), false).expect_err(wrong).kind(), ErrorKind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_slice_lies_in_those_that_its_name_tells() {
        let place = |slice: &str| expand_slice(slice).ok();
        assert_eq!(place("a-b-c.slice"), Some("a.slice/a-b.slice/a-b-c.slice".into()));
        assert_eq!(place("system.slice"), Some("system.slice".into()));
        assert_eq!(place("-.slice"), Some("".into()));
        for wrong in ["", "a", ".slice", "-a.slice", "a-.slice", "a--b.slice", "../a.slice", "a.scope"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_scope_is_made_with_its_process_and_limits() {
        let asked = "StartTransientUnit libpod-box.scope replace Description=\"Dewar container libpod-box\" \
                     Slice=\"machine.slice\" Delegate=true PIDs=[uint32 42] MemoryAccounting=true CPUAccounting=true \
                     IOAccounting=true TasksAccounting=true DefaultDependencies=false MemoryMax=uint64 5";
        for temper in [Temper::Good, Temper::Ends("done")] {
            let (made, calls) = talk(temper, false, |manager| manager.start(&scope(), 42, limits()));
            let place = made.expect("talks").expect("makes");
            assert_eq!(place, Path::new("user.slice/manager.service/machine.slice/libpod-box.scope"));
            assert_eq!(calls, [asked]);
        }
    }

    #[test]
    fn a_slice_takes_no_process() {
        let unit = Unit::parse(Some("a.slice::a-b.slice"), "id", false).expect("valid");
        let (made, calls) = talk(Temper::Good, false, |manager| manager.start(&unit, 42, Vec::new()));
        let place = made.expect("talks").expect("makes");
        assert_eq!(place, Path::new("user.slice/manager.service/a.slice/a-b.slice"));
        assert!(calls[0].contains(" Wants=[\"a.slice\"] ") && !calls[0].contains("PIDs"), "{calls:?}");
    }

    #[test]
    fn on_a_bus_it_asks_to_hear_of_jobs() {
        let (made, calls) = talk(Temper::Good, true, |manager| manager.start(&scope(), 42, limits()));
        made.expect("talks").expect("makes");
        assert!(calls[0].starts_with("AddMatch ") && calls[0].contains("member='JobRemoved'"), "{calls:?}");
        assert_eq!(calls[1], "Subscribe");
    }

    #[test]
    fn what_systemd_does_not_do_is_an_error_in_bounded_time() {
        let start = |manager: &mut Manager| manager.start(&scope(), 42, limits()).expect_err("fails").chain();
        let failed = |temper| talk(temper, false, start);
        let (text, calls) = failed(Temper::Ends("failed"));
        assert_eq!(text.expect("talks"), "Cannot have systemd make libpod-box.scope: its job ended as \"failed\"");
        assert_eq!(calls[1..], ["ResetFailedUnit libpod-box.scope"]);
        let (text, _) = failed(Temper::Refuses("org.freedesktop.DBus.Error.AccessDenied", 9));
        let wanted = "Cannot have systemd make libpod-box.scope: it is not wanted \
                      (org.freedesktop.DBus.Error.AccessDenied)";
        assert_eq!(text.expect("talks"), wanted);
        let (text, _) = failed(Temper::Silent);
        assert_eq!(text.expect("talks"), "Cannot have systemd make libpod-box.scope: nothing was heard for 500 ms");
        for (temper, wanted) in [
            (Temper::Rejects, "the authentication was refused: \"REJECTED KERBEROS_V4\""),
            (Temper::Deaf, "nothing was heard for 500 ms"),
        ] {
            let text = failed(temper).0.expect_err("does not talk").chain();
            assert!(text.starts_with("Cannot talk to systemd by /") && text.ends_with(wanted), "{text}");
        }
    }

    #[test]
    fn the_rest_of_a_failed_unit_is_in_nobodys_way() {
        let exists = |times| Temper::Refuses("org.freedesktop.systemd1.UnitExists", times);
        let start = |manager: &mut Manager| manager.start(&scope(), 42, limits());
        let (made, calls) = talk(exists(1), false, start);
        made.expect("talks").expect("makes");
        assert_eq!((calls.len(), calls[1].as_str()), (3, "ResetFailedUnit libpod-box.scope"));
        assert_eq!(calls[0], calls[2]);
        let text = talk(exists(9), false, start).0.expect("talks").expect_err("is taken").chain();
        assert!(text.contains("UnitExists"), "{text}");
    }

    #[test]
    fn limits_change_and_units_end() {
        let (set, calls) = talk(Temper::Good, false, |manager| manager.set(&scope(), &limits()));
        set.expect("talks").expect("sets");
        assert_eq!(calls, ["SetUnitProperties libpod-box.scope true MemoryMax=uint64 5"]);
        let no_such = Temper::Refuses("org.freedesktop.systemd1.NoSuchUnit", 9);
        for temper in [Temper::Good, no_such] {
            let (stopped, calls) = talk(temper, false, |manager| manager.stop(&scope()));
            stopped.expect("talks").expect("stops");
            assert_eq!(calls, ["StopUnit libpod-box.scope replace", "ResetFailedUnit libpod-box.scope"]);
        }
        let (stopped, _) = talk(Temper::Silent, false, |manager| manager.stop(&scope()));
        assert!(stopped.expect("talks").is_err());
    }

    #[test]
    fn where_systemd_is_depends_on_who_asks() {
        let none = |_: &str| None;
        assert_eq!(
            system_addresses(none).expect("valid"),
            [Address::peer(Path::new(PRIVATE)), Address::bus(Path::new(SYSTEM_BUS))]
        );
        let given = |_: &str| Some("unix:path=/x".to_owned());
        assert_eq!(system_addresses(given).expect("valid"), [Address::bus(Path::new("/x"))]);
        let run = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".to_owned());
        assert_eq!(
            user_addresses(run).expect("valid"),
            [Address::peer(Path::new("/run/user/7/systemd/private")), Address::bus(Path::new("/run/user/7/bus"))]
        );
        assert_eq!(user_addresses(none).expect("valid"), []);
    }

    #[test]
    fn without_systemd_there_is_a_sentence() {
        let nobody = [Address::peer(Path::new("/nowhere/private")), Address::bus(Path::new("/nowhere/bus"))];
        let error = Manager::first(&nobody, false, PATIENCE).expect_err("nobody");
        let text = "--systemd-cgroup needs systemd, and systemd does not run here (/nowhere/private, /nowhere/bus)";
        assert_eq!((error.kind(), error.chain().as_str()), (ErrorKind::Unsupported, text));
        let text = Manager::first(&[], true, PATIENCE).expect_err("nobody").chain();
        assert!(text.contains("XDG_RUNTIME_DIR is not set"), "{text}");
    }

    #[test]
    fn versions_are_numbers_at_the_head() {
        assert_eq!(version("252.38-1~deb12u1"), Some(252));
        assert_eq!(version("v245"), Some(245));
        assert_eq!(version("x"), None);
    }
}
