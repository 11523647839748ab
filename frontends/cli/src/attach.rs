//! A user's streams joined to a process in a container, until it ends or the user detaches.
//!
//! Without a terminal, `run`, `start` and `exec` hand their own standard streams to the supervisor: no byte passes through
//! here. With one, and for `attach`, which must let go of the streams when the user leaves, this process pumps: one
//! thread for each direction. Another thread takes the signals; the caller's thread waits for the process's end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use anyhow::Context;
use dewar_protocol::WindowSize;
use dewar_runtime::container::Container;
use dewar_runtime::control::{Client, Exit, Streams};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::signals::Signals;
use crate::terminal::{self, DetachKeys};

pub const DEFAULT_DETACH_KEYS: &str = "ctrl-p,ctrl-q";
const CHUNK: usize = 128 << 10;

/// Passed on to the container when it has no terminal.
const PROXIED: [i32; 7] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGCONT];
/// Ends this process when the container has a terminal; but the user's terminal is put right first.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// So many interrupts without an effect on the container let the user go.
const PATIENCE: u32 = 3;

/// How a process is joined.
pub struct Wishes {
    pub stdin: bool,
    pub terminal: bool,
    /// Pump even without a terminal.
    pub pumped: bool,
    pub detach_keys: DetachKeys,
    /// Pass signals on; never with a terminal.
    pub proxy_signals: bool,
}

/// Streams made, nothing moving yet.
pub struct Attachment {
    wishes: Wishes,
    signals: Option<Signals>,
    size: Option<WindowSize>,
    /// Our ends: input to write, outputs to read.
    stdin: Option<File>,
    outputs: Vec<(File, Target)>,
}

#[derive(Clone, Copy)]
enum Target {
    Stdout,
    Stderr,
}

/// Refuses what docker refuses: a terminal for the container without one here to type on.
pub fn check_terminal(interactive: bool, tty: bool) -> anyhow::Result<()> {
    if interactive && tty && !terminal::stdin_is_terminal() {
        anyhow::bail!("the input device is not a TTY");
    }
    Ok(())
}

impl Attachment {
    /// Makes the streams; to be called before any thread is started.
    pub fn new(wishes: Wishes) -> anyhow::Result<(Self, Streams)> {
        let wanted: &[i32] = match (wishes.terminal, wishes.proxy_signals) {
            (true, _) => &[libc::SIGWINCH, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT],
            (false, true) => &PROXIED,
            (false, false) => &[],
        };
        let signals =
            if wanted.is_empty() { None } else { Some(Signals::block(wanted).context("cannot block signals")?) };
        let size = if wishes.terminal { terminal::size() } else { None };
        let mut attachment = Self { wishes, signals, size, stdin: None, outputs: Vec::new() };
        let streams = attachment.streams().context("cannot make the streams")?;
        Ok((attachment, streams))
    }

    fn streams(&mut self) -> io::Result<Streams> {
        let mut streams = Streams::default();
        if !self.wishes.terminal && !self.wishes.pumped {
            if self.wishes.stdin {
                streams.stdin = Some(duplicate(&io::stdin())?);
            }
            streams.stdout = Some(duplicate(&io::stdout())?);
            streams.stderr = Some(duplicate(&io::stderr())?);
            return Ok(streams);
        }
        if self.wishes.stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            streams.stdin = Some(reader);
            self.stdin = Some(writer.into());
        }
        streams.stdout = Some(self.output(Target::Stdout)?);
        if !self.wishes.terminal {
            streams.stderr = Some(self.output(Target::Stderr)?);
        }
        Ok(streams)
    }

    fn output(&mut self, target: Target) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        self.outputs.push((reader.into(), target));
        Ok(writer)
    }

    /// The size that the container's terminal begins with.
    pub fn size(&self) -> Option<WindowSize> {
        self.size
    }

    /// Moves bytes until the process has ended and all its output is out; answers how it ended. Does not return when
    /// the user detaches: that ends this program with 0.
    pub fn run(self, client: &mut Client, container: &Container, exec: Option<&str>) -> anyhow::Result<Exit> {
        let Self { wishes, signals, size, stdin, outputs } = self;
        if wishes.terminal && wishes.stdin {
            terminal::make_raw().context("cannot set the terminal's mode")?;
        }
        let result = (|| {
            let pumps = outputs.into_iter().map(|(source, target)| spawn_output(source, target));
            let pumps: Vec<JoinHandle<()>> = pumps.collect::<io::Result<_>>()?;
            if let Some(sink) = stdin {
                spawn_input(sink, wishes.terminal.then_some(wishes.detach_keys))?;
            }
            if let Some(signals) = signals {
                let process = SignalTarget { container: container.clone(), exec: exec.map(str::to_owned) };
                spawn_signals(signals, process, wishes.terminal, size)?;
            }
            let exit = client.wait(exec)?;
            for pump in pumps {
                // It cannot have panicked without ending the program.
                let _ = pump.join();
            }
            Ok(exit)
        })();
        terminal::restore();
        result
    }
}

fn duplicate(stream: &impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}

fn spawn_output(mut source: File, target: Target) -> io::Result<JoinHandle<()>> {
    spawn("output", move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            let written = match target {
                Target::Stdout => write_all(&io::stdout(), bytes),
                Target::Stderr => write_all(&io::stderr(), bytes),
            };
            // Nobody reads any more; the supervisor learns it by the end of the pipe.
            if written.is_err() {
                return;
            }
        }
    })
}

/// Past the standard library's buffers.
fn write_all(stream: &impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ends with this process: nothing can wake a thread that reads from a terminal.
fn spawn_input(mut sink: File, mut keys: Option<DetachKeys>) -> io::Result<()> {
    spawn("input", move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(n) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            };
            let typed = buffer.get(..n).unwrap_or_default();
            let (bytes, detach) = match &mut keys {
                Some(keys) => keys.filter(typed),
                None => (typed.to_vec(), false),
            };
            if sink.write_all(&bytes).is_err() {
                return;
            }
            if detach {
                terminal::restore();
                // As docker: the prompt comes on a line of its own.
                eprintln!("\nread escape sequence");
                std::process::exit(0);
            }
        }
    })?;
    Ok(())
}

struct SignalTarget {
    container: Container,
    exec: Option<String>,
}

impl SignalTarget {
    /// A connection of its own: the other one is busy waiting. The process may have ended meanwhile, and then nothing
    /// is left to be told.
    fn send(&self, signal: i32) {
        let _ = Client::connect(&self.container).and_then(|mut c| c.signal(self.exec.as_deref(), signal));
    }

    fn resize(&self, size: WindowSize) {
        let _ = Client::connect(&self.container).and_then(|mut c| c.resize(self.exec.as_deref(), size));
    }
}

fn spawn_signals(
    signals: Signals,
    process: SignalTarget,
    terminal: bool,
    begun_with: Option<WindowSize>,
) -> io::Result<()> {
    spawn("signals", move || {
        // The window may have changed while the machine booted.
        if terminal
            && terminal::size() != begun_with
            && let Some(size) = terminal::size()
        {
            process.resize(size);
        }
        let mut interrupts = 0;
        while let Ok(signal) = signals.wait() {
            if signal == libc::SIGWINCH {
                if let Some(size) = terminal::size() {
                    process.resize(size);
                }
                continue;
            }
            if terminal && ENDING.contains(&signal) {
                terminal::restore();
                std::process::exit(128 + signal);
            }
            process.send(signal);
            interrupts += u32::from(signal == libc::SIGINT || signal == libc::SIGTERM);
            if interrupts >= PATIENCE {
                eprintln!("dewar: got {PATIENCE} interrupts that the container ignores, leaving it to itself");
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

/// Tells what the exit code alone does not, and answers it.
pub fn exit_code(exit: &Exit) -> u8 {
    if let Some(error) = &exit.error {
        eprintln!("dewar: {error}");
    }
    exit.code
}
