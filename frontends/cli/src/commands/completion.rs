//! `dewar completion`.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::cli::{Globals, Verb, command};
use crate::output;

#[derive(Debug, Args)]
pub struct Completion {
    /// Shell to complete in
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

impl Verb for Completion {
    const NAME: &'static str = "completion";
    const ABOUT: &'static str = "Print a shell's completion script";
    const USAGE: &'static str = "bash|zsh|fish";
    const EXAMPLES: &'static str = "  source <(dewar completion bash)";

    fn run(self, _globals: &Globals) -> anyhow::Result<u8> {
        let shell: Shell = self.shell.parse().map_err(|e: String| anyhow::anyhow!(e))?;
        let mut script = Vec::new();
        generate(shell, &mut command(), "dewar", &mut script);
        output::bytes(&script)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_every_verb_and_its_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(shell, &mut command(), "dewar", &mut script);
            let script = String::from_utf8(script).expect("text");
            for word in ["unpause", "security-opt", "no-trunc"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
