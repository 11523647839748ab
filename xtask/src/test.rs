//! `cargo xtask test`: unit tests, then the cases that boot a guest; closes on the runners' own counts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kernel::Recipe;
use crate::lab::groups::{Group, Phase, SILENCE, Tally, tests_of};
use crate::lab::{self, Disk, Lab};
use crate::packages;
use crate::places::Places;
use crate::stage::{self, cargo};
use crate::step::Steps;
use crate::workloads;

/// Of the clients' cases, which take about a minute each under emulation, those that every run has; `cargo xtask test
/// podman_` (or docker_, containerd_) runs the others.
const CLIENTS: [&str; 5] = [
    "podman_runs_and_tells_exit_codes",
    "podman_execs",
    "docker_runs_and_tells_exit_codes",
    "docker_execs",
    "containerd_tasks_are_driven",
];

/// Names of clients' cases that run in an image of Debian packages: only a filter asks for them, since the image takes
/// minutes to make and 350 MB to keep.
const WORKLOADS: &str = "workload_";
/// What tells these cases where the image is.
const WORKLOADS_ENV: &str = "DEWAR_CASES_WORKLOADS";

/// How long such a case may take in the lab: a database is made by a machine in an emulated one.
const WORKLOADS_SILENCE: Duration = Duration::from_secs(10 * 60);
/// Where it is in the lab.
const LAB_IMAGE: &str = "/opt/workloads";

/// Machines of the lab at a time.
const LANES: usize = 2;

/// What test runners said about themselves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds a runner's closing line (`test result: ok. 3 passed; 0 failed; 1 ignored; …`); other lines say nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(kind)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
            match kind {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// One group of tests with what its runners reported.
struct Report {
    name: String,
    counts: Counts,
    success: bool,
    /// What the counts do not say.
    remark: String,
}

impl Report {
    fn of_lab(name: &str, tally: &Tally) -> Self {
        let mut remark = if tally.boots > 1 { format!("; {} boots of the lab", tally.boots) } else { String::new() };
        if tally.only_again > 0 {
            remark.push_str(&format!("; {} of the passed failed at first and were run once more", tally.only_again));
        }
        let [passed, failed, ignored] =
            [tally.passed, tally.failed, tally.skipped].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
        Self { name: name.to_owned(), counts: Counts { passed, failed, ignored }, success: failed == 0, remark }
    }
}

pub fn test(places: &Places, filter: Option<&str>) -> Result<ExitCode> {
    let mut steps = Steps::new(places, 1 + stage::STEPS + lab::STEPS)?;
    stage::stage(&mut steps, places)?;
    steps.run("test packages", packages::install_missing_for_tests)?;
    let lab = if real_kvm(places)? {
        steps.run("clients", packages::install_missing_for_clients)?;
        None
    } else {
        Some(lab::prepare(&mut steps, places)?)
    };

    let image = if wants_workloads(places, filter)? { Some(workloads::prepare(places)?) } else { None };

    let mut unit = cargo(places);
    unit.args(["test", "--workspace", "--exclude", "dewar-cases", "--exclude", "dewar-conformance", "--no-fail-fast"])
        .args(filter);
    // The staged kernel is the ELF one; a case starts the other format too.
    let bzimage = Recipe::here(places, &[])?.dir(places).join("bzImage");
    let cases = |runner: &str, engine: &str| {
        let mut cases = cargo(places);
        cases.args(["test", "--package", "dewar-cases", "--no-fail-fast", "--test"]).arg(runner).args(filter);
        cases.env("DEWAR_STAGE", &places.stage).env("DEWAR_CASES_ENGINE", engine).env("DEWAR_CASES_BZIMAGE", &bzimage);
        cases
    };
    let mut conformance = cargo(places);
    conformance.args(["test", "--package", "dewar-conformance", "--no-fail-fast"]).args(filter);
    conformance.env("OCI_RUNTIME", places.bin().join("dewar-oci")).env("DEWAR_ENGINE", "qemu");
    let mut reports = vec![
        run("unit", &mut unit)?,
        run("cases on qemu", &mut cases("cases", "qemu"))?,
        run("conformance on qemu", &mut conformance)?,
    ];
    match &lab {
        Some(lab) => {
            let groups = lab_groups(places, &bzimage, image)?;
            reports.extend(run_in_lab(places, lab, filter, &groups)?);
        }
        None => {
            reports.push(run("cases on kvm", &mut cases("cases", "kvm"))?);
            reports.push(run("conformance on kvm", conformance.env("DEWAR_ENGINE", "kvm"))?);
            let mut clients = cases("clients", "kvm");
            match image {
                Some(image) => clients.env(WORKLOADS_ENV, image),
                None => clients.args(["--", "--skip", WORKLOADS]),
            };
            reports.push(run("clients on kvm", &mut clients)?);
        }
    }
    if filter.is_none() {
        // A group that ran nothing is not a group that passed.
        reports.iter_mut().for_each(|report| report.success &= report.counts.passed > 0);
    }

    eprintln!();
    let mut sum = Counts::default();
    for report in &reports {
        let Counts { passed, failed, ignored } = report.counts;
        let verdict = if report.success { "ok" } else { "FAILED" };
        eprintln!("{}: {verdict}: {passed} passed, {failed} failed, {ignored} ignored{}", report.name, report.remark);
        sum = Counts { passed: sum.passed + passed, failed: sum.failed + failed, ignored: sum.ignored + ignored };
    }
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.ignored);
    Ok(if reports.iter().all(|report| report.success) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a filter chooses a case that needs the image of Debian packages.
fn wants_workloads(places: &Places, filter: Option<&str>) -> Result<bool> {
    let Some(filter) = filter else { return Ok(false) };
    let cases = tests_of(&runner(places, "dewar-cases", "clients")?)?;
    Ok(cases.iter().any(|name| name.starts_with(WORKLOADS) && name.contains(filter)))
}

/// Runs a command with its output on the terminal, adding up what the runners say on the way.
fn run(name: &str, command: &mut Command) -> Result<Report> {
    eprintln!("\n{name} …");
    let mut child = command.stdout(Stdio::piped()).spawn().context("Failed to start cargo")?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("Failed to read the output of cargo")?;
            println!("{line}");
            counts.add(&line);
        }
    }
    let status = child.wait().context("Failed to wait for cargo")?;
    Ok(Report { name: name.to_owned(), counts, success: status.success(), remark: String::new() })
}

/// Whether this host's KVM runs the guest's ring 0 on hardware.
fn real_kvm(places: &Places) -> Result<bool> {
    let probe =
        Command::new(places.bin().join("dewar-vmm")).arg("probe").output().context("Failed to run the probe")?;
    Ok(String::from_utf8_lossy(&probe.stdout).contains("\"verdict\":\"real\""))
}

/// The groups that run in the nested machine, whose KVM is real. A new one is one more entry.
fn lab_groups(places: &Places, bzimage: &Path, image: Option<PathBuf>) -> Result<Vec<Group>> {
    let env = ["DEWAR_STAGE=/opt/dewar", "DEWAR_CASES_ENGINE=kvm", "DEWAR_CASES_BZIMAGE=/run/lab/bzImage"];
    let env = env.map(Into::into).to_vec();
    let group = |test: &str, package: &str, memory_mib: u32, env: &[String]| -> Result<Group> {
        let program = runner(places, package, test)?;
        let (name, env) = (format!("{test} on kvm"), env.to_vec());
        let (files, disks, chosen) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Group { name, program, env, files, disks, memory_mib, silence: SILENCE, chosen })
    };
    let mut clients = Group { chosen: CLIENTS.to_vec(), ..group("clients", "dewar-cases", 4096, &env)? };
    if let Some(from) = image {
        clients.env.push(format!("{WORKLOADS_ENV}={LAB_IMAGE}"));
        clients.silence = WORKLOADS_SILENCE;
        clients.disks.push(Disk { from, at: LAB_IMAGE.into() });
    }
    let oci = ["OCI_RUNTIME=/opt/dewar/bin/dewar-oci", "DEWAR_ENGINE=kvm"].map(Into::into);
    // The longest come first.
    Ok(vec![
        group("conformance", "dewar-conformance", 4096, &oci)?,
        Group { files: vec![bzimage.to_path_buf()], ..group("cases", "dewar-cases", 8192, &env)? },
        clients,
    ])
}

/// Runs the groups, two at a time: each machine has one CPU.
fn run_in_lab(places: &Places, lab: &Lab, filter: Option<&str>, groups: &[Group]) -> Result<Vec<Report>> {
    let phase = Phase::new(lab, &places.stage);
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    eprintln!("\n{} …", names.join("; "));
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = phase.run(group, filter).map(|tally| Report::of_lab(&group.name, &tally));
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// Builds a package's runner and answers where it is.
fn runner(places: &Places, package: &str, test: &str) -> Result<PathBuf> {
    let mut build = cargo(places);
    build.args(["test", "--package", package, "--test", test, "--no-run", "--message-format", "json"]);
    let output = build.stderr(Stdio::inherit()).output().context("Failed to start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == test).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.with_context(|| format!("cargo named no executable of {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up_and_nothing_else() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.0s");
        counts.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test a::b ... ok");
        counts.add("5 passed; 5 failed");
        assert_eq!(counts, Counts { passed: 5, failed: 4, ignored: 1 });
    }
}
