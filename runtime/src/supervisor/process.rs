//! A process in the guest as its supervisor sees it: streams, who is attached to them, and how it ended.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use dewar_protocol::{STREAM_PORT, Stdio, StreamId, WindowSize};

use super::streams::{Sinks, StdinTarget, pump_input, pump_output};
use super::{lock, wait_on};
use crate::container::Container;
use crate::container::log::{LogWriter, Output};
use crate::control::{Exit, Streams, fill_random};
use crate::engine::connect_vsock;
use crate::{Error, ErrorKind, ResultExt};

/// What streams a process gets, before they are connected.
#[derive(Debug)]
pub(crate) struct StreamPlan {
    terminal: Option<WindowSize>,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    attached: Streams,
    log: Option<Arc<Mutex<LogWriter>>>,
    /// The end of the attached output is the end of the process's output.
    foreground: bool,
}

impl StreamPlan {
    /// A container's init always has outputs, for its log; input when asked for at creation.
    pub(crate) fn for_init(container: &Container, attached: Streams, size: Option<WindowSize>) -> Result<Self, Error> {
        let config = &container.config;
        let log = LogWriter::open(&container.log_path())
            .context(|| format!("Cannot write {}", container.log_path().display()))?;
        // A terminal that goes away, by its keys or with its window, leaves the container running, as docker does.
        let foreground = attached.stdout.is_some() && !config.terminal;
        Ok(Self {
            terminal: config.terminal.then(|| size.unwrap_or_default()),
            stdin: config.open_stdin.then(new_stream_id),
            stdout: Some(new_stream_id()),
            stderr: (!config.terminal).then(new_stream_id),
            attached,
            log: Some(Arc::new(Mutex::new(log))),
            foreground,
        })
    }

    /// An exec'd process has the streams that its caller attached.
    pub(crate) fn for_exec(attached: Streams, size: Option<WindowSize>) -> Self {
        Self {
            terminal: size,
            stdin: attached.stdin.is_some().then(new_stream_id),
            stdout: attached.stdout.is_some().then(new_stream_id),
            stderr: (attached.stderr.is_some() && size.is_none()).then(new_stream_id),
            attached,
            log: None,
            foreground: size.is_none(),
        }
    }

    pub(crate) fn stdio(&self) -> Stdio {
        Stdio { terminal: self.terminal, stdin: self.stdin, stdout: self.stdout, stderr: self.stderr }
    }

    /// Connects the streams and starts their pumps.
    pub(crate) fn connect(self, vsock: &Path) -> Result<Process, Error> {
        let connect =
            |id: Option<StreamId>| id.map(|id| connect_vsock(vsock, STREAM_PORT, &id.0.to_le_bytes())).transpose();
        let (stdin, stdout, stderr) = (connect(self.stdin)?, connect(self.stdout)?, connect(self.stderr)?);
        // Kept to end the pumps of a process that did not come to be.
        let copies: std::io::Result<Vec<UnixStream>> =
            [&stdin, &stdout, &stderr].into_iter().flatten().map(UnixStream::try_clone).collect();
        let process = Process {
            guest: copies.context(|| "Cannot duplicate a stream".into())?,
            stdin: stdin.map(|s| Arc::new(StdinTarget::new(s))),
            stdout: Arc::new(Sinks::new(self.foreground)),
            stderr: Arc::new(Sinks::new(self.foreground)),
            pumps: Mutex::new(Vec::new()),
            exit: Mutex::new(None),
            ended: Condvar::new(),
        };
        process.attach(self.attached, self.foreground)?;
        let outputs = [(stdout, &process.stdout, Output::Stdout), (stderr, &process.stderr, Output::Stderr)];
        for (source, sinks, output) in outputs {
            let Some(source) = source else { continue };
            let pump = pump_output(source, Arc::clone(sinks), self.log.clone().map(|log| (log, output)))?;
            lock(&process.pumps).push(pump);
        }
        Ok(process)
    }
}

fn new_stream_id() -> StreamId {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    StreamId(u64::from_le_bytes(bytes))
}

#[derive(Debug)]
pub(crate) struct Process {
    guest: Vec<UnixStream>,
    stdin: Option<Arc<StdinTarget>>,
    stdout: Arc<Sinks>,
    stderr: Arc<Sinks>,
    pumps: Mutex<Vec<JoinHandle<()>>>,
    exit: Mutex<Option<Exit>>,
    ended: Condvar,
}

impl Process {
    /// Joins streams. `once`: the end of this input is the end of the process's input.
    pub(crate) fn attach(&self, streams: Streams, once: bool) -> Result<(), Error> {
        if lock(&self.exit).is_some() {
            return Err(Error::new(ErrorKind::State, "The process has ended already"));
        }
        if let Some(fd) = streams.stdout {
            self.stdout.add(fd);
        }
        if let Some(fd) = streams.stderr {
            self.stderr.add(fd);
        }
        if let (Some(fd), Some(target)) = (streams.stdin, &self.stdin) {
            pump_input(fd, Arc::clone(target), once)?;
        }
        Ok(())
    }

    /// Has something done when nothing more comes on the standard error.
    pub(crate) fn at_end_of_stderr(&self, work: impl FnOnce() + Send + 'static) {
        self.stderr.at_end(work);
    }

    /// Ends the streams of a process that did not come to be: the guest never claims them, so that nobody else would, and
    /// who reads the attached ends would wait for ever.
    pub(crate) fn abandon(&self) {
        for stream in &self.guest {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.wait_output();
    }

    /// Waits until all output has been delivered.
    pub(crate) fn wait_output(&self) {
        let pumps = std::mem::take(&mut *lock(&self.pumps));
        for pump in pumps {
            let _ = pump.join();
        }
    }

    pub(crate) fn set_exit(&self, exit: Exit) {
        *lock(&self.exit) = Some(exit);
        self.ended.notify_all();
    }

    pub(crate) fn wait(&self) -> Exit {
        let mut exit = lock(&self.exit);
        loop {
            if let Some(exit) = &*exit {
                return exit.clone();
            }
            exit = wait_on(&self.ended, exit);
        }
    }

    pub(crate) fn wait_timeout(&self, timeout: std::time::Duration) -> Option<Exit> {
        let exit = lock(&self.exit);
        let waited = self.ended.wait_timeout_while(exit, timeout, |exit| exit.is_none());
        let (exit, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        exit.clone()
    }
}
