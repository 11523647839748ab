//! `dewar run`, whole and by phase, and `dewar exec`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::stopwatch::{command, ms, now_ns, repeat, time};
use crate::{RUNS, report};

const RUN: &str = "dewar run --rm busybox true";
/// Where the lab has the installation.
pub const LIB: &str = "/opt/dewar/lib/dewar";
/// Phases of a start in their order, as `DEWAR_TRACE` names them, and what each is to a reader.
const PHASES: [(&str, &str); 14] = [
    ("CLI up", "front end's process"),
    ("image found", "image looked up"),
    ("container made", "files of the container"),
    ("supervisor up", "supervisor's process"),
    ("machine prepared", "engine chosen, machine described"),
    ("guest init", "VMM start and kernel, to the guest's init"),
    ("agent ready", "agent ready"),
    ("streams connected", "streams connected"),
    ("container created", "container created"),
    ("command runs", "command started"),
    ("command ended", "command ended"),
    ("output delivered", "output delivered"),
    ("files settled", "files removed"),
    ("done", "front end's exit"),
];
/// Not waited for by the user.
const TEARDOWN: (&str, &str) = ("files settled", "machine gone");

pub fn measure() -> Result<()> {
    time(command("dewar load -q -i").arg(Path::new(LIB).join("busybox.tar")))?;
    eprintln!("bench: {RUN}");
    report("dewar run, first after boot", "ms", &[time(&mut command(RUN))?]);
    report("dewar run", "ms", &repeat(RUNS, || time(&mut command(RUN)))?);
    phases()?;
    eprintln!("bench: dewar exec");
    time(&mut command("dewar run -d --name bench busybox sleep 1000000"))?;
    time(&mut command("dewar exec bench true"))?;
    report("dewar exec", "ms", &repeat(RUNS, || time(&mut command("dewar exec bench true")))?);
    time(&mut command("dewar rm -f bench")).map(drop)
}

fn phases() -> Result<()> {
    let mut figures: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut teardown = Vec::new();
    for run in 0..RUNS {
        let file = tempfile::NamedTempFile::new().context("cannot make a trace file")?;
        let began = now_ns();
        time(command(RUN).env("DEWAR_TRACE", file.path()))?;
        let ended = now_ns();
        let mut marks = wait_for(file.path(), TEARDOWN.1)?;
        marks.insert("done".into(), ended);
        teardown.push(between(&marks, TEARDOWN.0, TEARDOWN.1)?);
        let mut before = began;
        for (index, (mark, _)) in PHASES.iter().enumerate() {
            let at = *marks.get(*mark).with_context(|| format!("run {run} left no mark {mark:?}"))?;
            ensure!(at >= before, "run {run}: {mark:?} came before what it follows");
            figures.entry(index).or_default().push(ms(before, at));
            before = at;
        }
    }
    for (index, values) in figures {
        if let Some((_, meaning)) = PHASES.get(index) {
            report(&format!("phase: {meaning}"), "ms", &values);
        }
    }
    report("teardown after the answer", "ms", &teardown);
    Ok(())
}

fn between(marks: &BTreeMap<String, u64>, from: &str, to: &str) -> Result<f64> {
    let at = |name: &str| marks.get(name).copied().with_context(|| format!("no mark {name:?}"));
    Ok(ms(at(from)?, at(to)?))
}

/// Reads a trace once its last mark is there: the supervisor ends after its front end.
fn wait_for(path: &Path, last: &str) -> Result<BTreeMap<String, u64>> {
    // Far more than a machine's end takes.
    for _ in 0..200 {
        let text = fs::read_to_string(path).context("cannot read a trace")?;
        let marks = parse(&text);
        if marks.contains_key(last) {
            return Ok(marks);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    anyhow::bail!("a trace never came to {last:?}")
}

fn parse(text: &str) -> BTreeMap<String, u64> {
    let mark = |line: &str| {
        let (ns, phase) = line.split_once(' ')?;
        Some((phase.to_owned(), ns.parse().ok()?))
    };
    text.lines().filter_map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_read_by_phase() {
        let marks = parse("5000000 VMM spawned\n1000000 CLI up\nbroken\n");
        assert!((between(&marks, "CLI up", "VMM spawned").expect("both") - 4.0).abs() < 1e-9);
        assert!(between(&marks, "CLI up", "done").is_err());
    }
}
