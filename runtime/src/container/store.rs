//! Finding, making, locking and removing containers.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::config::{ContainerConfig, ContainerState, Status};
use crate::{Error, ErrorKind, Paths, ResultExt};

/// All containers below one state root.
#[derive(Debug, Clone)]
pub struct ContainerStore {
    dir: PathBuf,
    run: PathBuf,
}

impl ContainerStore {
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self { dir: paths.data.join("containers"), run: paths.run.clone() }
    }

    fn names(&self) -> PathBuf {
        self.dir.join("names")
    }

    /// Makes a container: claims its name, then writes its files. `prepare` fills the folder before it counts as made.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the name is taken; on any error nothing is left behind.
    pub fn create(
        &self,
        config: ContainerConfig,
        spec: &[u8],
        prepare: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Container, Error> {
        crate::paths::make_private_dir(&self.names())?;
        self.claim_name(&config)?;
        let container = Container { dir: self.dir.join(&config.id), run: self.run_dir(&config.id), config };
        let filled = container.fill(spec, prepare);
        if let Err(error) = filled {
            let _ = fs::remove_dir_all(&container.dir);
            let _ = fs::remove_file(self.names().join(&container.config.name));
            return Err(error);
        }
        Ok(container)
    }

    fn claim_name(&self, config: &ContainerConfig) -> Result<(), Error> {
        let link = self.names().join(&config.name);
        for _ in 0..2 {
            match symlink(&config.id, &link) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == IoKind::AlreadyExists => {}
                Err(e) => return Err(e).context(|| format!("Cannot claim the name {}", config.name)),
            }
            let Ok(holder) = fs::read_link(&link) else { continue };
            if self.dir.join(&holder).join("config.json").exists() || !self.abandoned(&holder) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "The container name \"/{}\" is already in use by container \"{}\". You have to remove (or rename) \
                         that container to be able to reuse that name",
                        config.name,
                        holder.display()
                    ),
                ));
            }
            let _ = fs::remove_dir_all(self.dir.join(&holder));
            let _ = fs::remove_file(&link);
        }
        Err(Error::new(ErrorKind::Conflict, format!("The container name \"/{}\" is being claimed", config.name)))
    }

    /// A claimed name whose folder has no configuration: its creator is at work (it holds the lock) or died.
    fn abandoned(&self, id: &Path) -> bool {
        let dir = self.dir.join(id);
        match File::open(dir.join("lock")) {
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => fs::symlink_metadata(self.names()).is_ok() && older_than_a_minute(&dir).unwrap_or(false),
        }
    }

    /// Every container, oldest first, with what a crash left put right.
    ///
    /// # Errors
    /// When the folder cannot be read. A single unreadable container is left out.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).context(|| format!("Cannot read {}", self.dir.display())),
        };
        let mut all: Vec<Container> = entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| name != "names")
            .filter_map(|id| self.open(&id).ok())
            .collect();
        all.sort_by_key(|c| c.config.created_ns);
        Ok(all)
    }

    /// Opens a container by its whole id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or unreadable files.
    pub fn open(&self, id: &str) -> Result<Container, Error> {
        let dir = self.dir.join(id);
        let text =
            fs::read(dir.join("config.json")).kind(ErrorKind::NotFound, || format!("No such container: {id}"))?;
        let config = serde_json::from_slice(&text).context(|| format!("Cannot read {}/config.json", dir.display()))?;
        Ok(Container { dir, run: self.run_dir(id), config })
    }

    /// Finds a container by name, id or unambiguous prefix of an id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Invalid`] when a prefix is ambiguous.
    pub fn find(&self, key: &str) -> Result<Container, Error> {
        let not_found = || Error::new(ErrorKind::NotFound, format!("No such container: {key}"));
        let plain = key.strip_prefix('/').unwrap_or(key);
        if plain.is_empty() || plain.contains('/') || plain == "." || plain == ".." || plain == "names" {
            return Err(not_found());
        }
        if let Ok(id) = fs::read_link(self.names().join(plain)) {
            return self.open(&id.to_string_lossy());
        }
        if !plain.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let ids = fs::read_dir(&self.dir).map_err(|_| not_found())?;
        let mut matching =
            ids.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|id| id.starts_with(plain));
        let id = matching.next().ok_or_else(not_found)?;
        if matching.next().is_some() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("Multiple containers begin with {key}: give more digits"),
            ));
        }
        self.open(&id)
    }

    /// Sockets of a running container: short, since a socket's path must fit into 108 bytes.
    fn run_dir(&self, id: &str) -> PathBuf {
        self.run.join(id.get(..16).unwrap_or(id))
    }
}

fn older_than_a_minute(path: &Path) -> Option<bool> {
    let modified = fs::symlink_metadata(path).ok()?.modified().ok()?;
    Some(modified.elapsed().ok()?.as_secs() > 60)
}

/// One container's files.
#[derive(Debug, Clone)]
pub struct Container {
    pub config: ContainerConfig,
    /// `<data>/containers/<id>`
    pub dir: PathBuf,
    /// `<run>/<id prefix>`
    pub run: PathBuf,
}

impl Container {
    fn fill(&self, spec: &[u8], prepare: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.dir)
            .context(|| format!("Cannot make the folder {}", self.dir.display()))?;
        let lock = self.open_lock()?;
        flock(&lock, FlockOperation::LockExclusive).context(|| "Cannot lock a new container".into())?;
        prepare(&self.dir)?;
        let write = |name: &str, bytes: &[u8]| {
            fs::write(self.dir.join(name), bytes).context(|| format!("Cannot write {}/{name}", self.dir.display()))
        };
        write("spec.json", spec)?;
        self.write_state(&ContainerState::created())?;
        let config = serde_json::to_vec(&self.config).context(|| "Cannot encode a container's configuration".into())?;
        write("config.json.new", &config)?;
        fs::rename(self.dir.join("config.json.new"), self.dir.join("config.json"))
            .context(|| format!("Cannot write {}/config.json", self.dir.display()))
    }

    fn open_lock(&self) -> Result<File, Error> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.dir.join("lock"))
            .context(|| format!("Cannot open {}/lock", self.dir.display()))
    }

    /// Takes the container's lock for as long as the answer lives; `None` when somebody (its supervisor) holds it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_lock(&self) -> Result<Option<File>, Error> {
        let file = self.open_lock()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).context(|| format!("Cannot lock {}", self.dir.display())),
        }
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn lock(&self) -> Result<File, Error> {
        let file = self.open_lock()?;
        flock(&file, FlockOperation::LockExclusive).context(|| format!("Cannot lock {}", self.dir.display()))?;
        Ok(file)
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// When it cannot be written; the old state stays.
    pub fn write_state(&self, state: &ContainerState) -> Result<(), Error> {
        let bytes = serde_json::to_vec(state).context(|| "Cannot encode a container's state".into())?;
        let fresh = self.dir.join("state.json.new");
        let write = || -> std::io::Result<()> {
            File::create(&fresh)?.write_all(&bytes)?;
            fs::rename(&fresh, self.dir.join("state.json"))
        };
        write().context(|| format!("Cannot write {}/state.json", self.dir.display()))
    }

    /// The state as it is written, whether or not its supervisor still lives.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_state(&self) -> Result<ContainerState, Error> {
        let path = self.dir.join("state.json");
        let text = fs::read(&path).kind(ErrorKind::NotFound, || format!("No such container: {}", self.config.id))?;
        serde_json::from_slice(&text).context(|| format!("Cannot read {}", path.display()))
    }

    /// The true state: one that says "running" although its supervisor died is put right first, and what the
    /// supervisor left behind is removed.
    ///
    /// # Errors
    /// As [`Container::read_state`].
    pub fn state(&self) -> Result<ContainerState, Error> {
        let state = self.read_state()?;
        if !state.status.is_live() {
            return Ok(state);
        }
        let Some(_lock) = self.try_lock()? else { return Ok(state) };
        let mut state = self.read_state()?;
        if state.status.is_live() {
            state.status = Status::Exited;
            state.exit_code = 137;
            state.pid = None;
            state.error = Some("its supervisor was killed".into());
            state.finished_ns = Some(crate::control::now_ns());
            let _ = fs::remove_dir_all(&self.run);
            self.write_state(&state)?;
        }
        Ok(state)
    }

    /// Removes every trace. The caller holds the lock and knows that nothing runs.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn remove_files(&self) -> Result<(), Error> {
        let _ = fs::remove_dir_all(&self.run);
        fs::remove_dir_all(&self.dir).context(|| format!("Cannot remove {}", self.dir.display()))?;
        if let Some(parent) = self.dir.parent() {
            let _ = fs::remove_file(parent.join("names").join(&self.config.name));
        }
        Ok(())
    }

    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    #[must_use]
    pub fn scratch_path(&self) -> PathBuf {
        self.dir.join("scratch.img")
    }
}
