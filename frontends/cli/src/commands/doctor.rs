//! `dewar doctor`.

use clap::Args;
use dewar_runtime::doctor::{Finding, Level, examine};

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::table::align;

#[derive(Debug, Args)]
pub struct Doctor {
    /// json: one object a line
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "table"], default_value = "table")]
    format: String,
}

impl Verb for Doctor {
    const NAME: &'static str = "doctor";
    const ABOUT: &'static str = "Say what this host can run, and what to do about what it cannot";
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let (findings, runs) = examine(&globals.runtime()?.paths)?;
        if self.format == "json" {
            for finding in &findings {
                let line = serde_json::json!({
                    "Level": word(finding.level), "Subject": finding.subject, "Text": finding.text, "Advice": finding.advice,
                });
                output::line(&line.to_string())?;
            }
        } else {
            output::bytes(align(&findings.iter().map(row).collect::<Vec<_>>()).as_bytes())?;
        }
        Ok(u8::from(!runs))
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Good => "ok",
        Level::Note => "note",
        Level::Bad => "bad",
    }
}

fn row(finding: &Finding) -> Vec<String> {
    let text = match finding.advice.as_str() {
        "" => finding.text.clone(),
        advice => format!("{}: {advice}", finding.text),
    };
    vec![word(finding.level).to_owned(), finding.subject.to_owned(), text]
}
