//! `cargo xtask bench`: runs tests/bench in the lab and writes docs/benchmarks.md.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::files;
use crate::lab::{self, Bounds, Disk, Job, Lab, Passing};
use crate::places::{Places, Program};
use crate::stage;
use crate::step::{Outcome, Steps};

const PROGRAM: Program = Program { name: "dewar-bench", package: "dewar-bench", is_static: true };
const PAGE: &str = "docs/benchmarks.md";
/// What stands above the tables.
const HEAD: &str = include_str!("bench.md");
/// A part of the program, where it runs, and the title of its table.
const PARTS: [(&str, Where, &str); 4] = [
    ("start", Where::CountedLab, "Starts and memory, instructions counted as nanoseconds"),
    ("oci", Where::CountedLab, "The OCI runtime next to crun, and virtio-fs next to the directory it shares, likewise"),
    ("bytes", Where::Lab, "Bytes, in the lab's real time: whoever else uses the machine shows"),
    ("host", Where::Host, "The qemu engine, which emulates, on the host in its real time"),
];

/// Where a part is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In the lab, instructions counted as nanoseconds.
    CountedLab,
    Lab,
    Host,
}
const LAB_MIB: u32 = 6144;
const LAB_CPUS: u32 = 2;
/// Figures come one by one.
const BOUNDS: Bounds = Bounds { silence: Duration::from_secs(15 * 60), total: Duration::from_secs(60 * 60) };

/// One figure: what it is, its unit, one value a run.
#[derive(Debug, PartialEq)]
struct Figure {
    name: String,
    unit: String,
    values: Vec<f64>,
}

/// What the parts are called.
pub fn names() -> [&'static str; PARTS.len()] {
    PARTS.map(|(part, ..)| part)
}

/// Measures `parts`; none are all of them.
pub fn bench(places: &Places, parts: &[String]) -> Result<ExitCode> {
    let mut steps = Steps::new(places, stage::STEPS + lab::STEPS + 1)?;
    stage::stage(&mut steps, places)?;
    let lab = lab::prepare(&mut steps, places)?;
    let mut program = OsString::new();
    steps.run("measuring program", |step| {
        program = stage::build_program(step, places, &PROGRAM)?.into();
        Ok(Outcome::Done)
    })?;
    let target = places.root.join(PAGE);
    let before = fs::read_to_string(&target).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for (part, place, title) in PARTS {
        if !parts.is_empty() && !parts.iter().any(|wanted| wanted == part) {
            page.push_str(kept(&before, title));
            continue;
        }
        eprintln!("\nmeasuring: {part} …");
        let text = match place {
            Where::Host => run_on_host(places, part, &program)?,
            _ => run_in_lab(places, &lab, part, place == Where::CountedLab, &program)?,
        };
        let log = places.logs().join(format!("bench-{part}.tsv"));
        fs::write(&log, &text).with_context(|| format!("Failed to write {}", log.display()))?;
        let figures: Vec<Figure> = text.lines().filter_map(parse).collect();
        ensure!(!figures.is_empty(), "The measuring program measured nothing");
        write!(page, "\n## {title}\n{}", table(&figures))?;
    }
    files::replace(&target, |file| std::io::Write::write_all(file, page.as_bytes()))
        .with_context(|| format!("Failed to write {PAGE}"))?;
    println!("\n{page}\nWritten to {PAGE}");
    Ok(ExitCode::SUCCESS)
}

/// A table of the page as it is, with its title; nothing when it has none.
fn kept<'a>(page: &'a str, title: &str) -> &'a str {
    let Some((start, _)) = page.match_indices("\n## ").find(|(at, mark)| {
        let rest = page.get(at + mark.len()..).and_then(|rest| rest.strip_prefix(title));
        rest.is_some_and(|rest| rest.starts_with('\n'))
    }) else {
        return "";
    };
    let section = page.get(start..).unwrap_or_default();
    let end = section.get(1..).and_then(|rest| rest.find("\n## ")).map_or(section.len(), |end| end + 1);
    section.get(..end).unwrap_or_default()
}

fn run_on_host(places: &Places, part: &str, program: &OsString) -> Result<String> {
    let mut command = Command::new(program);
    command.arg(part).arg(&places.stage).stderr(Stdio::inherit());
    let ended = command.output().with_context(|| format!("Failed to run {}", program.display()))?;
    ensure!(ended.status.success(), "The measuring program failed ({})", ended.status);
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// What the program prints.
fn run_in_lab(places: &Places, lab: &Lab, part: &str, counted: bool, program: &OsString) -> Result<String> {
    let ended = lab.run(&Job {
        deterministic: counted,
        smp: LAB_CPUS,
        memory_mib: LAB_MIB,
        disks: vec![Disk { from: places.stage.clone(), at: "/opt/dewar".into() }],
        files: vec![program.into()],
        env: vec!["DEWAR_ENGINE=kvm".into()],
        command: vec!["/run/lab/dewar-bench".into(), part.into()],
        out: None,
        bounds: BOUNDS,
        passing: Passing::Bytes,
    })?;
    ensure!(ended.code == 0, "The measuring program failed with code {}", ended.code);
    Ok(String::from_utf8_lossy(&ended.output).into_owned())
}

/// A line of the program's output; others are somebody else's.
fn parse(line: &str) -> Option<Figure> {
    let mut columns = line.split('\t');
    let (name, unit, values) = (columns.next()?.to_owned(), columns.next()?.to_owned(), columns.next()?);
    let values = values.split(' ').map(|value| value.parse().ok()).collect::<Option<Vec<f64>>>()?;
    Some(Figure { name, unit, values })
}

fn table(figures: &[Figure]) -> String {
    let mut text = "\n| Figure | Median | Least | Most | Runs | Unit |\n|---|--:|--:|--:|--:|---|\n".to_owned();
    for Figure { name, unit, values } in figures {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { continue };
        let median = median(&sorted);
        let row = format!("| {name} | **{median:.2}** | {least:.2} | {most:.2} | {} | {unit} |\n", sorted.len());
        text.push_str(&row);
    }
    text
}

/// Of values in order.
fn median(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(at(half.saturating_sub(1)), at(half)) } else { at(half) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_not_measured_is_kept() {
        let page = "# Head\n\n## One\n\n| a |\n\n## Two\n\n| b |\n";
        assert_eq!(kept(page, "One"), "\n## One\n\n| a |\n");
        assert_eq!(kept(page, "Two"), "\n## Two\n\n| b |\n");
        assert_eq!(kept(page, "Tw"), "");
        assert_eq!(kept(page, "Three"), "");
    }

    #[test]
    fn figures_become_rows() {
        let figure = parse("crun run\tms\t16.000 15.500 15.700 18.000").unwrap();
        let text = table(&[figure]);
        assert!(text.ends_with("\n| crun run | **15.85** | 15.50 | 18.00 | 4 | ms |\n"), "{text}");
        assert_eq!(parse("some words"), None);
        assert_eq!(parse("a\tb\tc"), None);
    }
}
