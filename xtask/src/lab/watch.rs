//! Watches one boot of the lab, so that none can hang: passes its output on as it comes, and kills the machine when its
//! kernel panics, when nothing comes any more, or when it takes too long.
//!
//! One thread, one `poll` over the machine's process and its three channels (standard output, standard error, console).
//! The channels are fifos that are opened before QEMU starts: what it never opens cannot block anybody.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What the console may show after a panic's first line, before the machine is killed.
const PANIC_GRACE: Duration = Duration::from_secs(5);
/// Console output that is kept, and how much of it a report shows.
const CONSOLE_KEPT: usize = 256 << 10;
const CONSOLE_LINES: usize = 40;
const PANIC: &str = "Kernel panic - not syncing";

/// How long a machine may stand.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Without a byte from the job (or, before its first, from the console).
    pub silence: Duration,
    /// From the start to the end.
    pub total: Duration,
}

/// How a machine came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself; what became of the job is on the exchange disk.
    Exited(ExitStatus),
    /// Its kernel panicked.
    Panicked,
    /// It was silent for too long and killed.
    Silent(Duration),
    /// It took too long and was killed.
    TooLong(Duration),
}

impl End {
    /// What happened to a machine that left no result, in a clause.
    pub fn reason(self) -> String {
        match self {
            Self::Exited(status) => format!("ended without a result (QEMU: {status})"),
            Self::Panicked => "was stopped: its kernel panicked".to_owned(),
            Self::Silent(bound) => format!("was killed: nothing came from it for {}", shown(bound)),
            Self::TooLong(bound) => format!("was killed: it ran for more than {}", shown(bound)),
        }
    }
}

/// A duration as people say it.
pub fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 120 && seconds.is_multiple_of(60) {
        format!("{} minutes", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

/// How the job's output is passed on.
#[derive(Debug, Clone)]
pub enum Passing {
    /// As it comes.
    Bytes,
    /// Line by line, each behind a name: several machines speak at once.
    Lines(String),
}

/// Bytes on their way to a stream of this process.
struct Passer<'a> {
    passing: &'a Passing,
    /// The beginning of a line.
    kept: Vec<u8>,
}

impl<'a> Passer<'a> {
    const fn new(passing: &'a Passing) -> Self {
        Self { passing, kept: Vec::new() }
    }

    /// Whoever reads this may have gone; the lab's run ends all the same.
    fn pass(&mut self, mut to: impl Write, bytes: &[u8]) {
        let Passing::Lines(name) = self.passing else {
            let _ = to.write_all(bytes).and_then(|()| to.flush());
            return;
        };
        self.kept.extend_from_slice(bytes);
        while let Some(end) = self.kept.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.kept.drain(..=end).collect();
            let _ = to.write_all(&[name.as_bytes(), b": ", &line].concat());
        }
        let _ = to.flush();
    }

    /// A line that nobody finished.
    fn end(mut self, to: impl Write) {
        if matches!(self.passing, Passing::Lines(_)) && !self.kept.is_empty() {
            self.pass(to, b"\n");
        }
    }
}

/// What is left of a machine.
#[derive(Debug)]
pub struct Watched {
    pub end: End,
    /// What the job wrote on standard output.
    pub output: Vec<u8>,
    pub console: Console,
}

/// The end of the console's output.
#[derive(Debug, Default)]
pub struct Console(Vec<u8>);

impl Console {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(CONSOLE_KEPT);
        self.0.drain(..surplus);
    }

    fn has_panic(&self) -> bool {
        self.0.windows(PANIC.len()).any(|part| part == PANIC.as_bytes())
    }

    /// The last lines, for a report, and of those before them what the kernel calls a bug or a panic.
    pub fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let (before, last) = lines.split_at(lines.len().saturating_sub(CONSOLE_LINES));
        let bugs = before.iter().filter(|line| line.contains(PANIC) || line.contains("BUG: "));
        let bugs: Vec<&str> = bugs.take(CONSOLE_LINES).copied().collect();
        [bugs.as_slice(), last].concat().join("\n")
    }
}

/// A byte channel out of the lab: a fifo that QEMU writes (its own stdio would hang a port up when input ends).
#[derive(Debug)]
pub struct Channel {
    fifo: File,
    open: bool,
}

impl Channel {
    /// Makes the fifo and opens its reading side.
    ///
    /// # Errors
    /// When the folder takes none.
    pub fn new(path: &Path) -> Result<Self> {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("Failed to make a fifo")?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fifo = rustix::fs::open(path, flags, Mode::empty()).context("Failed to open a fifo")?;
        Ok(Self { fifo: fifo.into(), open: true })
    }

    /// Reads what is there, into `take`; true when there was something.
    fn drain(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool> {
        let mut any = false;
        let mut buffer = [0; 65536];
        loop {
            match self.fifo.read(&mut buffer) {
                Ok(0) => {
                    // Nobody writes it any more: polling it further would return at once, for ever.
                    self.open = self.open && !self.hung_up()?;
                    return Ok(any);
                }
                Ok(read) => {
                    any = true;
                    take(buffer.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("Failed to read from the lab"),
            }
        }
    }

    /// Whether there was a writer and is none.
    fn hung_up(&self) -> Result<bool> {
        let mut entry = [PollFd::new(&self.fifo, PollFlags::IN)];
        poll(&mut entry, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).context("Failed to poll")?;
        Ok(entry.iter().any(|entry| entry.revents().contains(PollFlags::HUP)))
    }
}

/// The channels of a machine.
#[derive(Debug)]
pub struct Channels {
    pub out: Channel,
    pub err: Channel,
    pub console: Channel,
}

/// A started machine, which does not outlive this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It is a child that nobody has waited for, or has already been: the pid is its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a machine to its end, or to its bounds.
///
/// # Errors
/// When it cannot be started or watched.
pub fn watch(qemu: &mut Command, mut channels: Channels, bounds: Bounds, passing: &Passing) -> Result<Watched> {
    let mut machine = Machine(qemu.stdin(Stdio::null()).spawn().context("Failed to run QEMU")?);
    let pid = Pid::from_child(&machine.0);
    let process = pidfd_open(pid, PidfdFlags::empty()).context("Failed to watch QEMU")?;
    let mut clock = Clock::new(bounds);
    let mut output = Vec::new();
    let mut console = Console::default();
    let (mut out, mut err) = (Passer::new(passing), Passer::new(passing));
    loop {
        let ended = wait(&process, &channels, clock.left())?;
        let mut spoke = channels.out.drain(|bytes| {
            output.extend_from_slice(bytes);
            out.pass(io::stdout(), bytes);
        })?;
        spoke |= channels.err.drain(|bytes| err.pass(io::stderr(), bytes))?;
        if spoke {
            clock.job_spoke();
        }
        if channels.console.drain(|bytes| console.push(bytes))? {
            clock.console_spoke(console.has_panic());
        }
        // A machine whose kernel panicked may well have ended by itself: that is told first.
        let end = match (clock.verdict(), ended) {
            (Some(end), false) => end,
            (_, true) if clock.panicked.is_some() => End::Panicked,
            (_, true) => End::Exited(machine.0.wait().context("Failed to wait for QEMU")?),
            (None, false) => continue,
        };
        out.end(io::stdout());
        err.end(io::stderr());
        return Ok(Watched { end, output, console });
    }
}

/// Waits until the machine ends, a channel has something, or the time is up; true when it has ended.
fn wait(process: &rustix::fd::OwnedFd, channels: &Channels, left: Duration) -> Result<bool> {
    let mut entries = vec![PollFd::new(process, PollFlags::IN)];
    let open = [&channels.out, &channels.err, &channels.console].into_iter().filter(|channel| channel.open);
    entries.extend(open.map(|channel| PollFd::new(&channel.fifo, PollFlags::IN)));
    let seconds = left.as_secs().try_into().unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut entries, Some(&timeout)) {
        Ok(_) => Ok(entries.first().is_some_and(|entry| !entry.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("Failed to poll"),
    }
}

/// Which moment ends the machine.
#[derive(Debug)]
struct Clock {
    bounds: Bounds,
    started: Instant,
    /// The last sign of life.
    heard: Instant,
    job_runs: bool,
    panicked: Option<Instant>,
}

impl Clock {
    fn new(bounds: Bounds) -> Self {
        let now = Instant::now();
        Self { bounds, started: now, heard: now, job_runs: false, panicked: None }
    }

    fn job_spoke(&mut self) {
        self.job_runs = true;
        self.heard = Instant::now();
    }

    /// A kernel that stands still may complain about it for ever: once the job has spoken, only that is a sign of life.
    fn console_spoke(&mut self, panic: bool) {
        if !self.job_runs {
            self.heard = Instant::now();
        }
        if panic {
            self.panicked.get_or_insert_with(Instant::now);
        }
    }

    /// The ends that can come, with the moment of each.
    fn ends(&self) -> impl Iterator<Item = (End, Instant)> {
        let Bounds { silence, total } = self.bounds;
        let bounds = [(End::Silent(silence), self.heard + silence), (End::TooLong(total), self.started + total)];
        bounds.into_iter().chain(self.panicked.map(|at| (End::Panicked, at + PANIC_GRACE)))
    }

    fn left(&self) -> Duration {
        self.ends().map(|(_, at)| at.saturating_duration_since(Instant::now())).min().unwrap_or_default()
    }

    fn verdict(&self) -> Option<End> {
        let now = Instant::now();
        self.ends().filter(|(_, at)| *at <= now).min_by_key(|(_, at)| *at).map(|(end, _)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Watches a shell in the machine's place; `$1` to `$3` are its channels.
    fn machine(script: &str, silence: Duration, total: Duration) -> (Watched, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let channel = |name: &str| Channel::new(&path(name)).unwrap();
        let channels = Channels { out: channel("out"), err: channel("err"), console: channel("console") };
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args([path("out"), path("err"), path("console")]);
        let started = Instant::now();
        let watched = watch(&mut command, channels, Bounds { silence, total }, &Passing::Bytes).unwrap();
        (watched, started.elapsed())
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn a_machine_ends_by_itself_and_its_last_words_are_kept() {
        let (watched, _) = machine("echo started >$3; echo one >$1; echo two >$1", LONG, LONG);
        assert!(matches!(watched.end, End::Exited(status) if status.success()), "{:?}", watched.end);
        assert_eq!(String::from_utf8_lossy(&watched.output), "one\ntwo\n");
        assert_eq!(watched.console.tail(), "started");
    }

    #[test]
    fn lines_are_passed_whole_and_under_their_machine_s_name() {
        let passing = Passing::Lines("lab".into());
        let (mut passer, mut seen) = (Passer::new(&passing), Vec::new());
        passer.pass(&mut seen, b"test a ... ");
        assert_eq!(seen, b"");
        passer.pass(&mut seen, b"ok\ntest b ... ok\ntest c");
        assert_eq!(String::from_utf8_lossy(&seen), "lab: test a ... ok\nlab: test b ... ok\n");
        passer.end(&mut seen);
        assert!(seen.ends_with(b"lab: test c\n"));
    }

    #[test]
    fn a_machine_that_opens_no_channel_ends_too() {
        let (watched, _) = machine("exit 3", LONG, LONG);
        assert!(matches!(watched.end, End::Exited(status) if status.code() == Some(3)), "{:?}", watched.end);
    }

    #[test]
    fn a_silent_machine_is_killed() {
        let (watched, took) = machine("echo hello >$1; exec sleep 600", SHORT, LONG);
        assert_eq!(watched.end, End::Silent(SHORT));
        assert_eq!(String::from_utf8_lossy(&watched.output), "hello\n");
        assert!(took < LONG);
    }

    #[test]
    fn complaints_on_the_console_are_no_sign_of_life_of_the_job() {
        let script = "exec 3>$1 4>$3; echo job >&3; while :; do echo 'rcu: stall' >&4; sleep 0.05; done";
        let (watched, took) = machine(script, Duration::from_secs(1), LONG);
        assert_eq!(watched.end, End::Silent(Duration::from_secs(1)));
        assert!(took < LONG);
        assert!(watched.console.tail().ends_with("rcu: stall"));
    }

    #[test]
    fn a_talkative_machine_is_killed_at_its_bound() {
        let (watched, took) = machine("exec 3>$1; while :; do echo x >&3; sleep 0.05; done", LONG, SHORT);
        assert_eq!(watched.end, End::TooLong(SHORT));
        assert!(took < LONG);
    }

    #[test]
    fn a_panic_is_told_from_an_end() {
        let (watched, _) = machine("printf 'x\\nKernel panic - not syncing: y\\n' >$3", LONG, LONG);
        assert_eq!(watched.end, End::Panicked);
        assert_eq!(watched.console.tail(), "x\nKernel panic - not syncing: y");
    }

    #[test]
    fn a_machine_that_panics_and_stays_is_killed() {
        let (watched, took) = machine("echo 'Kernel panic - not syncing: y' >$3; exec sleep 600", LONG, LONG);
        assert_eq!(watched.end, End::Panicked);
        assert!(took >= PANIC_GRACE && took < LONG, "{took:?}");
    }

    #[test]
    fn the_console_s_end_is_bounded() {
        let mut console = Console::default();
        (0..100_000).for_each(|line| console.push(format!("line {line}\n").as_bytes()));
        assert!(console.0.len() <= CONSOLE_KEPT);
        assert_eq!(console.tail().lines().count(), CONSOLE_LINES);
        assert!(console.tail().ends_with("line 99999"));
        console.push(format!("{PANIC}: x\n").as_bytes());
        (0..2 * CONSOLE_LINES).for_each(|_| console.push(b"trace\n"));
        assert!(console.tail().starts_with(&format!("{PANIC}: x\ntrace\n")));
    }
}
