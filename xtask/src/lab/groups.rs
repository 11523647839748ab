//! Groups of tests in the lab: one boot for each, more when the machine dies, and an end in any case.
//!
//! L1's kernel under emulation panics or stands still now and then, which says nothing about Dewar. So what has passed
//! stays passed, what a dead machine left goes into a fresh one, and a few failures are run once more by themselves; the
//! summary says so. What never passed is a failure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::machine::{Boot, Disk, Job, Lab};
use super::outcomes::{Outcome, Outcomes, listed, selection};
use super::watch::{Bounds, Passing, shown};

/// All groups together.
const PHASE: Duration = Duration::from_secs(40 * 60);
/// One boot.
const BOOT: Duration = Duration::from_secs(25 * 60);
/// Tests whose output keeps away for longer stand still, unless they are known to be slow.
pub const SILENCE: Duration = Duration::from_secs(4 * 60);
/// Boots that a group's tests get, besides the one for failures.
const BOOTS: usize = 3;
/// More failures than this are no accident.
const AGAIN: usize = 4;
/// Two emulated CPUs would let nested guests die of triple faults at times.
const CPUS: u32 = 1;

/// Tests of one runner (libtest or libtest-mimic) with one environment.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    /// The runner, on the host; it is asked for its tests here and runs there.
    pub program: PathBuf,
    /// `K=V`.
    pub env: Vec<String>,
    /// Host files that appear in /run/lab.
    pub files: Vec<PathBuf>,
    /// Besides the staged prefix.
    pub disks: Vec<Disk>,
    /// Of L1.
    pub memory_mib: u32,
    /// How long a boot may say nothing.
    pub silence: Duration,
    /// The tests that run when no filter asks for others; none: all.
    pub chosen: Vec<&'static str>,
}

/// What became of a group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    /// With those that never ran.
    pub failed: usize,
    pub skipped: usize,
    /// Those of the passed that failed at first.
    pub only_again: usize,
    pub boots: usize,
    /// The failed by name, each with what became of it.
    pub failures: Vec<(String, &'static str)>,
}

/// The time of all groups together, and what they run in.
#[derive(Debug)]
pub struct Phase<'a> {
    lab: &'a Lab,
    stage: PathBuf,
    end: Instant,
}

impl<'a> Phase<'a> {
    /// Starts the clock.
    pub fn new(lab: &'a Lab, stage: &Path) -> Self {
        Self { lab, stage: stage.to_owned(), end: Instant::now() + PHASE }
    }

    /// Runs the tests of a group whose names contain the filter.
    ///
    /// # Errors
    /// When the lab cannot be started at all; a lab that dies is in the answer.
    pub fn run(&self, group: &Group, filter: Option<&str>) -> Result<Tally> {
        let all = tests_of(&group.program)?;
        let unknown = group.chosen.iter().find(|name| !all.iter().any(|known| known == *name));
        ensure!(unknown.is_none(), "{}: there is no test {}", group.name, unknown.copied().unwrap_or_default());
        let wanted = |name: &&String| match filter {
            Some(filter) => name.contains(filter),
            None => group.chosen.is_empty() || group.chosen.contains(&name.as_str()),
        };
        let wanted = all.iter().filter(wanted).cloned().collect();
        let mut boot = |names: &[String]| self.boot(group, &selection(&all, names));
        let tally = run_tests(wanted, &mut boot)?;
        for (name, what) in &tally.failures {
            eprintln!("{}: {name}: {what}", group.name);
        }
        Ok(tally)
    }

    /// One boot, bounded by what is left of the phase; none when nothing is left.
    fn boot(&self, group: &Group, selected: &[String]) -> Result<Option<Outcomes>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            eprintln!("{}: no more boots: the lab's tests took more than {} in all", group.name, shown(PHASE));
            return Ok(None);
        }
        let file = group.program.file_name().context("The tests have no name")?;
        let mut command: Vec<OsString> = vec![Path::new("/run/lab").join(file).into()];
        command.extend(["--test-threads", "1", "--color", "never"].map(Into::into));
        command.extend(selected.iter().map(Into::into));
        let Boot { code, output } = self.lab.boot(&Job {
            deterministic: false,
            smp: CPUS,
            memory_mib: group.memory_mib,
            disks: [&[Disk { from: self.stage.clone(), at: "/opt/dewar".into() }], group.disks.as_slice()].concat(),
            files: [std::slice::from_ref(&group.program), &group.files].concat(),
            env: group.env.clone(),
            command,
            out: None,
            bounds: Bounds { silence: group.silence, total: BOOT.min(left) },
            passing: Passing::Lines(group.name.clone()),
        })?;
        let outcomes = Outcomes::parse(&output);
        match code {
            Err(death) => {
                eprintln!("{}: {}", group.name, death.report());
                if let Some(running) = &outcomes.running {
                    eprintln!("{}: {running} was running", group.name);
                }
            }
            Ok(code) if !outcomes.complete => eprintln!("{}: the runner ended early (code {code})", group.name),
            Ok(_) => {}
        }
        Ok(Some(outcomes))
    }
}

/// Asks a runner for its tests.
pub fn tests_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).arg("--list").stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("Failed to run {}", program.display()))?;
    ensure!(output.status.success(), "{} does not list its tests", program.display());
    Ok(listed(&output.stdout))
}

/// Boots until every test has an outcome, or no boot is left; then once more for a few that failed.
fn run_tests(wanted: Vec<String>, boot: &mut dyn FnMut(&[String]) -> Result<Option<Outcomes>>) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    let mut pending = wanted;
    // A test during which a machine died may well be the reason: the others go first.
    let mut suspects: Vec<String> = Vec::new();
    while tally.boots < BOOTS && !(pending.is_empty() && suspects.is_empty()) {
        if pending.is_empty() || tally.boots + 1 == BOOTS {
            pending.append(&mut suspects);
        }
        let Some(attempt) = boot(&pending)? else { break };
        tally.boots += 1;
        pending.retain(|name| match attempt.told.get(name) {
            Some(Outcome::Passed) => add(&mut tally.passed),
            Some(Outcome::Skipped) => add(&mut tally.skipped),
            Some(Outcome::Failed) => {
                failed.push(name.clone());
                false
            }
            None => true,
        });
        if let Some(running) = attempt.running {
            suspects.extend(pending.extract_if(.., |name| *name == running));
        }
    }
    if (1..=AGAIN).contains(&failed.len()) {
        eprintln!("{} failed; once more, alone: {}", failed.len(), failed.join(", "));
        if let Some(attempt) = boot(&failed)? {
            tally.boots += 1;
            failed.retain(|name| match attempt.told.get(name) {
                Some(Outcome::Passed) => add(&mut tally.only_again) || add(&mut tally.passed),
                Some(Outcome::Skipped) => add(&mut tally.skipped),
                Some(Outcome::Failed) | None => true,
            });
        }
    }
    tally.failures.extend(failed.into_iter().map(|name| (name, "failed")));
    tally.failures.extend(suspects.into_iter().map(|name| (name, "did not end: the lab died while it ran")));
    tally.failures.extend(pending.into_iter().map(|name| (name, "did not run: the lab died before")));
    tally.failed = tally.failures.len();
    Ok(tally)
}

/// Counts one up; false, for it needs no keeping.
fn add(counter: &mut usize) -> bool {
    *counter += 1;
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs tests against boots that come out as given; answers the tally and which tests each boot got.
    fn run(wanted: &[&str], boots: &[&str]) -> (Tally, Vec<String>) {
        let mut boots = boots.iter();
        let mut asked = Vec::new();
        let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
        let tally = run_tests(wanted, &mut |names| {
            asked.push(names.join(" "));
            Ok(boots.next().map(|output| Outcomes::parse(output.as_bytes())))
        });
        (tally.unwrap(), asked)
    }

    #[test]
    fn one_boot_is_enough_when_all_goes_well() {
        let (tally, asked) = run(&["a", "b"], &["test a ... ok\ntest b ... ignored (why)\ntest result: ok. "]);
        assert_eq!(asked, ["a b"]);
        assert_eq!(tally, Tally { passed: 1, skipped: 1, boots: 1, ..Tally::default() });
    }

    #[test]
    fn nothing_wanted_is_no_boot() {
        assert_eq!(run(&[], &[]), (Tally::default(), vec![]));
    }

    #[test]
    fn what_a_dead_lab_left_goes_into_a_fresh_one_with_the_suspect_last() {
        let boots = ["test a ... ok\ntest b ... ", "test c ... ok\ntest d ... ok\n", "test b ... ok\n"];
        let (tally, asked) = run(&["a", "b", "c", "d"], &boots);
        assert_eq!(asked, ["a b c d", "c d", "b"]);
        assert_eq!(tally, Tally { passed: 4, boots: 3, ..Tally::default() });
    }

    #[test]
    fn boots_are_at_most_three_and_what_they_left_has_failed() {
        let boots = ["test a ... ", "test b ... ok\ntest c ... ", "test a ... ", "test a ... ok"];
        let (tally, asked) = run(&["a", "b", "c", "d"], &boots);
        assert_eq!(asked, ["a b c d", "b c d", "d a c"]);
        let names: Vec<&str> = tally.failures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "d", "c"]);
        assert_eq!((tally.passed, tally.failed, tally.boots), (1, 3, 3));
    }

    #[test]
    fn a_few_failures_are_run_once_more() {
        let (tally, asked) = run(
            &["a", "b", "c"],
            &["test a ... FAILED\ntest b ... ok\ntest c ... FAILED\n", "test a ... ok\ntest c ... FAILED\n"],
        );
        assert_eq!(asked, ["a b c", "a c"]);
        assert_eq!((tally.passed, tally.failed, tally.only_again, tally.boots), (2, 1, 1, 2));
        assert_eq!(tally.failures, [("c".to_owned(), "failed")]);
    }

    #[test]
    fn many_failures_are_not() {
        let names = ["a", "b", "c", "d", "e"];
        let output: String = names.iter().map(|name| format!("test {name} ... FAILED\n")).collect();
        let (tally, asked) = run(&names, &[&output]);
        assert_eq!((asked.len(), tally.failed, tally.passed), (1, 5, 0));
    }

    #[test]
    fn a_lab_that_dies_at_once_fails_everything() {
        let (tally, asked) = run(&["a", "b"], &["", "", "", "test a ... ok\n"]);
        assert_eq!((asked.len(), tally.failed, tally.boots), (3, 2, 3));
    }

    #[test]
    fn no_time_left_fails_the_rest() {
        let (tally, asked) = run(&["a", "b"], &["test a ... ok\ntest b ... "]);
        assert_eq!(asked, ["a b", "b"]);
        assert_eq!((tally.passed, tally.failed, tally.boots), (1, 1, 1));
    }
}
