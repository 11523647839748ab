//! `cargo xtask test`: unit tests, then the cases that boot a guest; closes on the runners' own counts.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::kernel::Recipe;
use crate::lab::{self, Disk, Job, Lab};
use crate::packages;
use crate::places::Places;
use crate::stage::{self, cargo};
use crate::step::Steps;

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
    name: &'static str,
    counts: Counts,
    success: bool,
}

pub fn test(places: &Places, filter: Option<&str>) -> Result<ExitCode> {
    let mut steps = Steps::new(places, 1 + stage::STEPS + lab::STEPS)?;
    stage::stage(&mut steps, places)?;
    steps.run("test packages", packages::install_missing_for_tests)?;
    let lab = if real_kvm(places)? { None } else { Some(lab::prepare(&mut steps, places)?) };

    let mut unit = cargo(places);
    unit.args(["test", "--workspace", "--exclude", "dewar-cases", "--no-fail-fast"]).args(filter);
    // The staged kernel is the ELF one; a case starts the other format too.
    let bzimage = Recipe::here(places, &[])?.dir(places).join("bzImage");
    let cases = |engine: &str| {
        let mut cases = cargo(places);
        cases.args(["test", "--package", "dewar-cases", "--no-fail-fast"]).args(filter);
        cases.env("DEWAR_STAGE", &places.stage).env("DEWAR_CASES_ENGINE", engine).env("DEWAR_CASES_BZIMAGE", &bzimage);
        cases
    };
    let mut reports = vec![run("unit", &mut unit)?, run("cases on qemu", &mut cases("qemu"))?];
    reports.push(match &lab {
        Some(lab) => run_in_lab(places, lab, filter, &bzimage)?,
        None => run("cases on kvm", &mut cases("kvm"))?,
    });
    if filter.is_none() {
        // A group that ran nothing is not a group that passed.
        reports.iter_mut().for_each(|report| report.success &= report.counts.passed > 0);
    }

    eprintln!();
    for report in &reports {
        let Counts { passed, failed, ignored } = report.counts;
        let verdict = if report.success { "ok" } else { "FAILED" };
        eprintln!("{}: {verdict}: {passed} passed, {failed} failed, {ignored} ignored", report.name);
    }
    Ok(if reports.iter().all(|report| report.success) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a command with its output on the terminal, adding up what the runners say on the way.
fn run(name: &'static str, command: &mut Command) -> Result<Report> {
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
    Ok(Report { name, counts, success: status.success() })
}

/// Whether this host's KVM runs the guest's ring 0 on hardware.
fn real_kvm(places: &Places) -> Result<bool> {
    let probe =
        Command::new(places.bin().join("dewar-vmm")).arg("probe").output().context("Failed to run the probe")?;
    Ok(String::from_utf8_lossy(&probe.stdout).contains("\"verdict\":\"real\""))
}

/// The same executable in the nested machine, whose KVM is real.
fn run_in_lab(places: &Places, lab: &Lab, filter: Option<&str>, bzimage: &Path) -> Result<Report> {
    let name = "cases on kvm, in the lab";
    eprintln!("\n{name} …");
    let program = cases_executable(places)?;
    let file = program.file_name().context("The cases have no name")?;
    let mut command: Vec<OsString> = vec![Path::new("/run/lab").join(file).into()];
    // Its processors are emulated ones: two guests at a time are enough.
    command.extend(["--test-threads", "2"].map(Into::into));
    command.extend(filter.map(Into::into));
    let disks = vec![Disk { from: places.stage.clone(), at: "/opt/dewar".into() }];
    let env = ["DEWAR_STAGE=/opt/dewar", "DEWAR_CASES_ENGINE=kvm", "DEWAR_CASES_BZIMAGE=/run/lab/bzImage"];
    let ended = lab.run(&Job {
        deterministic: false,
        smp: 2,
        memory_mib: 8192,
        disks,
        files: vec![program, bzimage.to_path_buf()],
        env: env.map(Into::into).to_vec(),
        command,
        out: None,
    })?;
    let mut counts = Counts::default();
    String::from_utf8_lossy(&ended.output).lines().for_each(|line| counts.add(line));
    Ok(Report { name, counts, success: ended.code == 0 })
}

/// Builds the cases and answers where their executable is.
fn cases_executable(places: &Places) -> Result<PathBuf> {
    let mut build = cargo(places);
    build.args(["test", "--package", "dewar-cases", "--test", "cases", "--no-run", "--message-format", "json"]);
    let output = build.stderr(Stdio::inherit()).output().context("Failed to start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "cases").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo named no executable of the cases")
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
