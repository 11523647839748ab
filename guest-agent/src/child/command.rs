//! Finding the command in the container and running it.

use std::{
    ffi::{CString, OsStr},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use dewar_protocol::ErrorKind;
use rustix::{
    fs::{Access, AtFlags, CWD, FileType, accessat, stat},
    io::Errno,
};

use crate::{
    error::{Failure, Result},
    sys::process::{self, CStringArray},
};

/// Where a shell looks when PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that exists and claims to be executable.
pub struct Command {
    path: CString,
    name: String,
    arguments: CStringArray,
    environment: CStringArray,
}

impl Command {
    /// Finds the first argument, by the PATH of `environment` unless it holds a slash, as the user who will run it.
    pub fn find(arguments: &[CString], environment: Vec<CString>) -> Result<Self> {
        let name = arguments.first().ok_or_else(|| Failure::invalid("The process has no arguments"))?;
        let path = environment.iter().rev().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
        let shown = name.to_string_lossy().into_owned();
        let found = locate(OsStr::from_bytes(name.to_bytes()), path.unwrap_or(DEFAULT_PATH.as_bytes()))
            .map_err(|errno| failure(&shown, errno, name.to_bytes().contains(&b'/')))?;
        let path = CString::new(found.into_os_string().as_bytes())
            .map_err(|_| Failure::invalid("The command holds a null byte"))?;
        Ok(Self {
            path,
            name: shown,
            arguments: CStringArray::new(arguments.to_vec()),
            environment: CStringArray::new(environment),
        })
    }

    /// Runs it in place of this process; returns only when that fails.
    pub fn run(&self) -> Failure {
        let errno = Errno::from_io_error(&process::execute(&self.path, &self.arguments, &self.environment));
        failure(&self.name, errno.unwrap_or(Errno::IO), true)
    }
}

fn locate(name: &OsStr, path: &[u8]) -> std::result::Result<PathBuf, Errno> {
    if name.is_empty() {
        return Err(Errno::NOENT);
    }
    if name.as_bytes().contains(&b'/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let mut worst = Errno::NOENT;
    for directory in path.split(|b| *b == b':') {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(worst)
}

fn executable(path: &Path) -> std::result::Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn failure(name: &str, errno: Errno, by_path: bool) -> Failure {
    match errno {
        Errno::NOENT | Errno::NOTDIR if by_path => {
            Failure::new(ErrorKind::CommandNotFound, format!("exec: {name:?}: no such file or directory"))
        }
        Errno::NOENT | Errno::NOTDIR => {
            Failure::new(ErrorKind::CommandNotFound, format!("exec: {name:?}: executable file not found in $PATH"))
        }
        Errno::ACCESS | Errno::PERM => {
            Failure::new(ErrorKind::CommandNotExecutable, format!("exec: {name:?}: permission denied"))
        }
        Errno::ISDIR => Failure::new(ErrorKind::CommandNotExecutable, format!("exec: {name:?}: is a directory")),
        Errno::NOEXEC => Failure::new(ErrorKind::CommandNotExecutable, format!("exec: {name:?}: exec format error")),
        other => Failure::new(ErrorKind::CommandNotExecutable, format!("exec: {name:?}: {}", io::Error::from(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, path: &str) -> Result<Command> {
        let variable = CString::new(format!("PATH={path}")).expect("no null");
        Command::find(&[CString::new(name).expect("no null")], vec![variable])
    }

    #[test]
    fn a_command_is_found_by_path() {
        let command = find("sh", "/nowhere:/bin").expect("found");
        assert_eq!(command.path.to_str(), Ok("/bin/sh"));
    }

    #[test]
    fn what_is_missing_and_what_cannot_run_are_told_apart() {
        let kind = |name, path| find(name, path).err().map(|failure| failure.kind);
        assert_eq!(kind("no-such-command", "/bin"), Some(ErrorKind::CommandNotFound));
        assert_eq!(kind("/no/such/file", "/bin"), Some(ErrorKind::CommandNotFound));
        assert_eq!(kind("", "/bin"), Some(ErrorKind::CommandNotFound));
        assert_eq!(kind("/", "/bin"), Some(ErrorKind::CommandNotExecutable));
        let plain = tempfile::NamedTempFile::new().expect("a file without the right to be executed");
        let plain = plain.path().to_str().expect("a plain name");
        assert_eq!(kind(plain, "/bin"), Some(ErrorKind::CommandNotExecutable));
    }
}
