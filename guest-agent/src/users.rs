//! Who a process runs as: docker's `user[:group]`, resolved in the root filesystem's own `/etc/passwd` and `/etc/group`.
//!
//! The files belong to the image and are hostile. They are found without leaving the root (`openat2`, RESOLVE_IN_ROOT),
//! must be regular files outside procfs, and are read up to [`MAX_FILE`]; lines that do not parse are skipped, and never
//! read as id 0. What the names mean is docker's: a number is always an id and needs no entry, a name needs one; an
//! explicit group leaves the supplementary groups out.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC},
    io::Errno,
};

use crate::child::paths;

/// Largest passwd or group file that is read.
const MAX_FILE: u64 = 1 << 20;
/// Largest id, as docker has it.
const MAX_ID: u32 = i32::MAX as u32;
/// What setgroups(2) takes (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;
/// Home of a user without an entry.
const DEFAULT_HOME: &str = "/";

/// Why a user could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser { name: String },
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup { name: String },
    #[error("uids and gids must be in range 0-{MAX_ID}, and {value} is not")]
    Range { value: String },
    #[error("User {name} is in more than {MAX_GROUPS} groups")]
    TooManyGroups { name: String },
    #[error("/{path} of the root filesystem is not a regular file")]
    NotAFile { path: &'static str },
    #[error("/{path} of the root filesystem is larger than {MAX_FILE} bytes")]
    TooLarge { path: &'static str },
    #[error("/{path} of the root filesystem cannot be read")]
    Read { path: &'static str, source: io::Error },
}

/// The ids of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    /// Never empty.
    pub home: String,
}

/// Resolves docker's `user[:group]`; empty is root. `root` is the root directory (O_PATH will do).
///
/// # Errors
/// Any [`UserError`].
pub fn lookup(root: BorrowedFd<'_>, user: &str) -> Result<Identity, UserError> {
    resolve(user, &read_file(root, "etc/passwd")?, &read_file(root, "etc/group")?)
}

/// Finds the home directory of a numeric user; `/` without an entry.
///
/// # Errors
/// [`UserError::NotAFile`], [`UserError::TooLarge`] and [`UserError::Read`].
pub fn home_of(root: BorrowedFd<'_>, uid: u32) -> Result<String, UserError> {
    let passwd = read_file(root, "etc/passwd")?;
    Ok(passwd_entries(&passwd).find(|e| e.uid == uid).map_or_else(|| DEFAULT_HOME.to_owned(), |e| e.home()))
}

struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl PasswdEntry<'_> {
    fn home(&self) -> String {
        match std::str::from_utf8(self.home) {
            Ok(home) if !home.is_empty() => home.to_owned(),
            _ => DEFAULT_HOME.to_owned(),
        }
    }
}

struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    fn has_member(&self, name: &[u8]) -> bool {
        self.members.split(|&b| b == b',').any(|member| member.trim_ascii() == name)
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && line.first() != Some(&b'#'))
}

fn number(field: &[u8]) -> Option<u32> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(field).ok().filter(|_| digits)?.parse().ok()?;
    (value <= MAX_ID).then_some(value)
}

fn passwd_entries(file: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next()?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(file: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next()?;
        let gid = number(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(GroupEntry { name, gid, members })
    })
}

/// What one side of the colon names.
enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Result<Self, UserError> {
        match text.parse::<i64>() {
            Ok(value) => match u32::try_from(value) {
                Ok(id) if id <= MAX_ID => Ok(Self::Id(id)),
                _ => Err(UserError::Range { value: text.to_owned() }),
            },
            Err(_) => Ok(Self::Name(text)),
        }
    }

    fn matches(&self, id: u32, name: &[u8]) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Name(wanted) => wanted.as_bytes() == name,
        }
    }
}

/// The pure part of [`lookup`]: what the files say, empty when there are none.
///
/// # Errors
/// [`UserError::NoUser`], [`UserError::NoGroup`], [`UserError::Range`] and [`UserError::TooManyGroups`].
pub fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let mut parts = spec.split(':');
    let user_part = parts.next().unwrap_or_default();
    let group_part = parts.next().unwrap_or_default();

    let wanted = if user_part.is_empty() { Wanted::Id(0) } else { Wanted::parse(user_part)? };
    let entry = passwd_entries(passwd).find(|e| wanted.matches(e.uid, e.name));
    let (uid, mut gid, home) = match (&entry, &wanted) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home()),
        (None, Wanted::Id(uid)) => (*uid, 0, DEFAULT_HOME.to_owned()),
        (None, Wanted::Name(name)) => return Err(UserError::NoUser { name: (*name).to_owned() }),
    };

    let mut supplementary = Vec::new();
    if !group_part.is_empty() {
        let wanted = Wanted::parse(group_part)?;
        gid = match (group_entries(group).find(|e| wanted.matches(e.gid, e.name)), wanted) {
            (Some(entry), _) => entry.gid,
            (None, Wanted::Id(gid)) => gid,
            (None, Wanted::Name(name)) => return Err(UserError::NoGroup { name: name.to_owned() }),
        };
    } else if let Some(entry) = &entry {
        supplementary.extend(group_entries(group).filter(|g| g.has_member(entry.name)).map(|g| g.gid));
        supplementary.sort_unstable();
        supplementary.dedup();
        supplementary.retain(|id| *id != gid);
    }
    supplementary.insert(0, gid);
    if supplementary.len() > MAX_GROUPS {
        return Err(UserError::TooManyGroups { name: spec.to_owned() });
    }
    Ok(Identity { uid, gid, groups: supplementary, home })
}

/// Reads a file of the root; empty when it does not exist.
fn read_file(root: BorrowedFd<'_>, path: &'static str) -> Result<Vec<u8>, UserError> {
    let failed = |source: Errno| UserError::Read { path, source: source.into() };
    let pinned = match paths::open(root, Path::new(path), OFlags::PATH) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let file = reopen(pinned.as_fd()).map_err(failed)?.ok_or(UserError::NotAFile { path })?;
    let mut content = Vec::new();
    File::from(file)
        .take(MAX_FILE.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|source| UserError::Read { path, source })?;
    if content.len() as u64 > MAX_FILE {
        return Err(UserError::TooLarge { path });
    }
    Ok(content)
}

/// Opens a pinned file for reading. The type is known before that: opening a FIFO or a device can block or have effects.
fn reopen(pinned: BorrowedFd<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    let regular = FileType::from_raw_mode(rustix::fs::fstat(pinned)?.st_mode) == FileType::RegularFile;
    if !regular || rustix::fs::fstatfs(pinned)?.f_type == PROC_SUPER_MAGIC {
        return Ok(None);
    }
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).map(Some)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # comment:x:7:7::/:\n\
        broken:x:NaN:5::/broken:/bin/sh\n\
        short:x\n\
        huge:x:4294967296:1::/h:\n\
        web:x:33:33:web server:/var/www:/bin/sh\n\
        web2:x:33:34::/second:/bin/sh\n\
        1000:x:77:77::/num:/bin/sh\n\
        homeless:x:50:51\n\
        \xff\xfe:x:60:60::/\xff:\n";
    const GROUP: &[u8] = b"root:x:0:\nwww:x:33:\nadm:x:4:web, root\nssl:x:9:root,web,web\nbad:x:x:web\n+:::\n";

    fn id(spec: &str) -> Identity {
        resolve(spec, PASSWD, GROUP).expect("resolves")
    }

    fn message(spec: &str) -> String {
        resolve(spec, PASSWD, GROUP).expect_err("fails").to_string()
    }

    #[test]
    fn empty_is_root_with_its_groups_and_home() {
        let root = Identity { uid: 0, gid: 0, groups: vec![0, 4, 9], home: "/root".into() };
        assert_eq!(id(""), root);
        assert_eq!(id("root"), root);
        assert_eq!(id("0"), root);
    }

    #[test]
    fn a_name_brings_its_group_supplementary_groups_and_home() {
        assert_eq!(id("web"), Identity { uid: 33, gid: 33, groups: vec![33, 4, 9], home: "/var/www".into() });
    }

    #[test]
    fn a_number_is_an_id_even_when_a_user_is_called_so() {
        assert_eq!(id("1000"), Identity { uid: 1000, gid: 0, groups: vec![0], home: "/".into() });
    }

    #[test]
    fn the_first_of_two_entries_with_one_id_counts() {
        assert_eq!(id("33").home, "/var/www");
    }

    #[test]
    fn an_explicit_group_leaves_the_supplementary_groups_out() {
        assert_eq!(id("web:adm"), Identity { uid: 33, gid: 4, groups: vec![4], home: "/var/www".into() });
        assert_eq!(id("web:12345").gid, 12345);
        assert_eq!(id(":adm"), Identity { uid: 0, gid: 4, groups: vec![4], home: "/root".into() });
        assert_eq!(id("5:6:7"), Identity { uid: 5, gid: 6, groups: vec![6], home: "/".into() });
    }

    #[test]
    fn unknown_names_are_errors_in_dockers_words() {
        assert_eq!(message("nope"), "unable to find user nope: no matching entries in passwd file");
        assert_eq!(message("web:nope"), "unable to find group nope: no matching entries in group file");
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        for spec in ["-1", "2147483648", "4294967295", "0:-1", "0:99999999999"] {
            assert!(matches!(resolve(spec, PASSWD, GROUP), Err(UserError::Range { .. })), "{spec}");
        }
    }

    #[test]
    fn lines_that_do_not_parse_are_never_id_0() {
        for name in ["broken", "short", "huge", "# comment", "comment"] {
            assert!(matches!(resolve(name, PASSWD, GROUP), Err(UserError::NoUser { .. })), "{name}");
        }
        assert_eq!(id("homeless").home, "/");
        assert_eq!(id("60").home, "/");
    }

    fn root_with(passwd: impl FnOnce(&std::path::Path)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("makes a directory");
        std::fs::create_dir(dir.path().join("etc")).expect("makes etc");
        passwd(&dir.path().join("etc/passwd"));
        dir
    }

    fn lookup_in(dir: &tempfile::TempDir, user: &str) -> Result<Identity, UserError> {
        lookup(File::open(dir.path()).expect("opens").as_fd(), user)
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        let dir = tempfile::tempdir().expect("makes a directory");
        assert_eq!(lookup_in(&dir, "7:8").expect("resolves").gid, 8);
        assert!(matches!(lookup_in(&dir, "root"), Err(UserError::NoUser { .. })));
    }

    #[test]
    fn links_stay_inside_the_root() {
        let dir = root_with(|path| symlink("/../../../inner", path).expect("links"));
        std::fs::write(dir.path().join("inner"), PASSWD).expect("writes");
        assert_eq!(lookup_in(&dir, "web").expect("resolves").uid, 33);
        let fd = File::open(dir.path()).expect("opens");
        assert_eq!(home_of(fd.as_fd(), 33).expect("reads"), "/var/www");
    }

    #[test]
    fn what_is_not_a_plain_bounded_file_is_refused() {
        let fifo = root_with(|path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("makes a fifo");
        });
        assert!(matches!(lookup_in(&fifo, "root"), Err(UserError::NotAFile { .. })));
        let folder = root_with(|path| std::fs::create_dir(path).expect("makes a directory"));
        assert!(matches!(lookup_in(&folder, "root"), Err(UserError::NotAFile { .. })));
        let huge = root_with(|path| File::create(path).and_then(|f| f.set_len(MAX_FILE + 1)).expect("makes a file"));
        assert!(matches!(lookup_in(&huge, "root"), Err(UserError::TooLarge { .. })));
    }
}
