//! Where things lie on the host.

use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, ResultExt};

/// How long the name of the folder of sockets may be: a socket's own has to fit into 107 bytes, of which `/`, the first 16
/// digits of a container's id and the longest socket's name, `/vsock.sock_4294967295`, take 39.
const MAX_RUN: usize = 68;

/// The folders of one Dewar installation and of one user's (or root's) state.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Images and containers; survives a reboot.
    pub data: PathBuf,
    /// Sockets and locks of what runs; does not survive a reboot.
    pub run: PathBuf,
    /// Guest kernel, initramfs, templates: `../lib/dewar` beside the running program's folder.
    pub lib: PathBuf,
    /// The programs that belong together.
    pub bin: PathBuf,
}

impl Paths {
    /// With `root`, all state lies below it; otherwise in the places of the Filesystem Hierarchy Standard (root) or the
    /// XDG base directories (others, also when they are root in a user namespace of their own, as rootless podman is).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when no place can be told, [`ErrorKind::Internal`] when folders cannot be made.
    pub fn find(root: Option<&Path>) -> Result<Self, Error> {
        let (data, run) = match root {
            Some(root) => {
                let root = std::path::absolute(root).context(|| format!("Cannot resolve {}", root.display()))?;
                (root.clone(), root.join("run"))
            }
            None if is_root_of_the_host() => ("/var/lib/dewar".into(), usual_run()?),
            None => (user_data()?, usual_run()?),
        };
        check_length(root, &run)?;
        for dir in [&data, &run] {
            make_private_dir(dir)?;
        }
        Self::of_program(data, run)
    }

    /// The folder of what runs, without [`Self::find`]'s other ones; engines do not tell their runtimes where the user's
    /// home is.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn run_only() -> Result<PathBuf, Error> {
        let run = usual_run()?;
        check_length(None, &run)?;
        make_private_dir(&run)?;
        Ok(run)
    }

    /// The installation that the running program is of, with these folders for state.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the program cannot tell where it lies.
    pub fn of_program(data: PathBuf, run: PathBuf) -> Result<Self, Error> {
        let exe = std::env::current_exe().context(|| "Cannot tell where this program lies".into())?;
        let bin = exe.parent().unwrap_or(Path::new("/")).to_path_buf();
        let lib = bin.parent().unwrap_or(Path::new("/")).join("lib/dewar");
        Ok(Self { data, run, lib, bin })
    }

    /// A file of the installation.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with what to do.
    pub fn lib_file(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.lib.join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "{} is missing: run `cargo xtask install` or start Dewar through `cargo xtask run`",
                path.display()
            ),
        ))
    }
}

/// Whether the places of root are this process's.
fn is_root_of_the_host() -> bool {
    let maps = || std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && !(is_of_a_user(&maps()) && from_env("XDG_RUNTIME_DIR").is_some())
}

/// Whether user 0 here is another user of the host (user_namespaces(7)).
fn is_of_a_user(uid_map: &str) -> bool {
    let mut words = uid_map.split_whitespace();
    words.next() == Some("0") && words.next().is_some_and(|outside| outside != "0")
}

fn usual_run() -> Result<PathBuf, Error> {
    if is_root_of_the_host() {
        return Ok("/run/dewar".into());
    }
    from_env("XDG_RUNTIME_DIR").map_or_else(user_data, |run| Ok(run.join("dewar")))
}

fn user_data() -> Result<PathBuf, Error> {
    let data = from_env("XDG_DATA_HOME").or_else(|| from_env("HOME").map(|home| home.join(".local/share")));
    let data =
        data.ok_or_else(|| Error::new(ErrorKind::Invalid, "Neither HOME nor XDG_DATA_HOME is set: give --root DIR"))?;
    Ok(data.join("dewar"))
}

fn check_length(root: Option<&Path>, run: &Path) -> Result<(), Error> {
    let excess = run.as_os_str().len().saturating_sub(MAX_RUN);
    if excess == 0 {
        return Ok(());
    }
    let message = match root {
        Some(root) => format!(
            "The root directory {} is too long by {excess} bytes, since the names of sockets below it are limited: choose \
             a shorter one",
            root.display()
        ),
        None => format!(
            "The directory {} is too long by {excess} bytes, since the names of sockets below it are limited: set \
             XDG_RUNTIME_DIR to a shorter one",
            run.display()
        ),
    };
    Err(Error::new(ErrorKind::Invalid, message))
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Makes a folder, its parents included, that only its owner can enter.
pub(crate) fn make_private_dir(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context(|| format!("Cannot make the folder {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_user_s_namespace_is_told_from_the_host_s() {
        assert!(!is_of_a_user("         0          0 4294967295\n"));
        assert!(is_of_a_user("         0       1000          1\n         1     100000      65536\n"));
        assert!(!is_of_a_user(""));
    }

    #[test]
    fn a_root_that_is_too_long_for_sockets_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let fill = |length: usize| dir.path().join("x".repeat(length - dir.path().as_os_str().len() - 1));
        let paths = Paths::find(Some(&fill(64))).unwrap();
        let socket = paths.run.join("0123456789abcdef").join(format!("vsock.sock_{}", 99_999));
        std::fs::create_dir(socket.parent().unwrap()).unwrap();
        std::os::unix::net::UnixListener::bind(socket).unwrap();
        let long = fill(65);
        let error = Paths::find(Some(&long)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("is too long by 1 bytes"), "{error}");
        assert!(!long.exists());
    }
}
