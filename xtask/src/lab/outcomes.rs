//! What a test runner in the lab said about its tests, as far as it came: the format of libtest and libtest-mimic.

use std::collections::BTreeMap;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    /// From the words after `test NAME ... `.
    fn parse(words: &str) -> Option<Self> {
        match words.trim_end() {
            "ok" => Some(Self::Passed),
            "FAILED" => Some(Self::Failed),
            "ignored" => Some(Self::Skipped),
            other => ["ignored (", "ignored, "].iter().any(|start| other.starts_with(start)).then_some(Self::Skipped),
        }
    }
}

/// A runner's output, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub told: BTreeMap<String, Outcome>,
    /// The test that had begun and not ended: known with one test at a time, which are announced before they run.
    pub running: Option<String>,
    /// Whether the runner came to its closing line.
    pub complete: bool,
}

impl Outcomes {
    pub fn parse(output: &[u8]) -> Self {
        let mut outcomes = Self::default();
        String::from_utf8_lossy(output).lines().for_each(|line| outcomes.line(line));
        outcomes
    }

    fn line(&mut self, line: &str) {
        if line.starts_with("test result: ") {
            self.complete = true;
        } else if let Some((name, rest)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            self.running = Some(name.trim_end().to_owned());
            self.outcome(rest);
        } else {
            // A test that wrote something put the outcome on a line of its own.
            self.outcome(line);
        }
    }

    fn outcome(&mut self, words: &str) {
        if let Some(outcome) = Outcome::parse(words)
            && let Some(name) = self.running.take()
        {
            self.told.insert(name, outcome);
        }
    }
}

/// The names that a runner lists (`NAME: test`).
pub fn listed(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Arguments that make a runner run just the wanted tests of all of them.
pub fn selection(all: &[String], wanted: &[String]) -> Vec<String> {
    if let [one] = wanted {
        return vec!["--exact".into(), one.clone()];
    }
    let others = all.iter().filter(|name| !wanted.contains(name));
    let skips: Vec<String> = others.flat_map(|name| ["--skip".to_owned(), name.clone()]).collect();
    if skips.is_empty() { skips } else { ["--exact".to_owned()].into_iter().chain(skips).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcomes: &Outcomes) -> Vec<(&str, Outcome)> {
        outcomes.told.iter().map(|(name, outcome)| (name.as_str(), *outcome)).collect()
    }

    #[test]
    fn a_whole_run_is_read() {
        let outcomes = Outcomes::parse(
            b"\nrunning 4 tests\ntest a      ... ok\ntest bb     ... FAILED\ntest c ... ignored (no disk)\n\
              test d ... ignored\n\nfailures:\n\n---- bb ----\nsaid: test x\n\n\nfailures:\n    bb\n\n\
              test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        );
        let expected =
            [("a", Outcome::Passed), ("bb", Outcome::Failed), ("c", Outcome::Skipped), ("d", Outcome::Skipped)];
        assert_eq!(told(&outcomes), expected);
        assert_eq!((outcomes.running, outcomes.complete), (None, true));
    }

    #[test]
    fn a_run_that_was_cut_off_names_the_test_that_ran() {
        let outcomes = Outcomes::parse(b"running 3 tests\ntest a ... ok\ntest b ... ");
        assert_eq!(told(&outcomes), [("a", Outcome::Passed)]);
        assert_eq!((outcomes.running.as_deref(), outcomes.complete), (Some("b"), false));
    }

    #[test]
    fn an_outcome_that_was_cut_off_is_none() {
        for end in ["test b ... FAI", "test b ... o", "test b ... ignor", "test b ... some words\nmore"] {
            let outcomes = Outcomes::parse(format!("test a ... ok\n{end}").as_bytes());
            assert_eq!(told(&outcomes), [("a", Outcome::Passed)], "{end}");
            assert_eq!(outcomes.running.as_deref(), Some("b"), "{end}");
        }
        assert_eq!(Outcomes::parse(b"test a ... ok\ntest b").running, None);
    }

    #[test]
    fn output_between_a_test_and_its_outcome_is_passed_over() {
        let outcomes = Outcomes::parse(b"test a ... hello\nworld\nok\nok\ntest b ... \xff\xfe\nFAILED\n");
        assert_eq!(told(&outcomes), [("a", Outcome::Passed), ("b", Outcome::Failed)]);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(Outcomes::parse(b""), Outcomes::default());
    }

    #[test]
    fn tests_are_selected_by_leaving_out_the_others() {
        let all = listed(b"a: test\nab: test\nabc: test\nb: bench\n\n3 tests, 1 benchmark\n");
        assert_eq!(all, ["a", "ab", "abc"]);
        assert_eq!(selection(&all, &all), [""; 0]);
        assert_eq!(selection(&all, &all[..1]), ["--exact", "a"]);
        assert_eq!(selection(&all, &all[..2]), ["--exact", "--skip", "abc"]);
    }
}
