//! From the command line to a verb. A verb's arguments are only described to clap when that verb is asked for, so that
//! two dozen of them cost a start nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use dewar_runtime::Runtime;

use crate::commands;
use crate::failure::Usage;

/// What holds for every verb.
pub struct Globals {
    root: Option<PathBuf>,
    debug: bool,
    began: Instant,
}

impl Globals {
    pub fn runtime(&self) -> anyhow::Result<Runtime> {
        Ok(Runtime::open(self.root.as_deref())?)
    }

    /// With `--debug`, says how far things are and how long they took.
    pub fn trace(&self, what: &str) {
        dewar_runtime::trace::mark(what);
        if self.debug {
            eprintln!("dewar: {:>9.3} ms: {what}", self.began.elapsed().as_secs_f64() * 1e3);
        }
    }
}

/// A verb: its arguments, and what it does.
pub trait Verb: Args {
    const NAME: &'static str;
    const ABOUT: &'static str;
    /// After `dewar <name>`.
    const USAGE: &'static str;
    const EXAMPLES: &'static str = "";

    /// Answers the exit code.
    fn run(self, globals: &Globals) -> anyhow::Result<u8>;
}

/// A verb without its types.
pub struct Entry {
    name: &'static str,
    about: &'static str,
    augment: fn(Command) -> Command,
    run: fn(&ArgMatches, &Globals) -> anyhow::Result<u8>,
}

impl Entry {
    pub const fn of<V: Verb>() -> Self {
        Self { name: V::NAME, about: V::ABOUT, augment: augment::<V>, run: run_verb::<V> }
    }
}

fn augment<V: Verb>(command: Command) -> Command {
    let command = V::augment_args(command.disable_help_flag(true)).mut_args(optional_value);
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print this help");
    let usage =
        if V::USAGE.is_empty() { format!("dewar {}", V::NAME) } else { format!("dewar {} {}", V::NAME, V::USAGE) };
    let command = command.arg(help).override_usage(usage);
    if V::EXAMPLES.is_empty() { command } else { command.after_help(format!("Examples:\n{}", V::EXAMPLES)) }
}

/// Docker takes `--rm=false` for every switch.
fn optional_value(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .value_name("BOOL")
        .value_parser(clap::builder::BoolishValueParser::new())
        .hide_default_value(true)
}

fn run_verb<V: Verb>(matches: &ArgMatches, globals: &Globals) -> anyhow::Result<u8> {
    V::from_arg_matches(matches)?.run(globals)
}

/// The whole command, each verb's arguments still to come.
pub fn command() -> Command {
    let root = Arg::new("root")
        .long("root")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Keep images and containers below DIR");
    let debug =
        Arg::new("debug").long("debug").short('D').action(ArgAction::SetTrue).help("Say how long each step takes");
    let mut command = Command::new("dewar")
        .about("Run containers, each in a microVM of its own")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .override_usage("dewar [OPTIONS] COMMAND")
        .subcommand_value_name("COMMAND")
        .subcommand_help_heading("Commands")
        .after_help("Run 'dewar COMMAND --help' for more information on a command.")
        .args([root, debug]);
    for entry in commands::ALL {
        command = command.subcommand(Command::new(entry.name).about(entry.about).defer(entry.augment));
    }
    command
}

fn run_with(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<u8> {
    let began = Instant::now();
    dewar_runtime::trace::mark("CLI up");
    let args: Vec<OsString> = args.into_iter().collect();
    let mut matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.print()?;
            return Ok(0);
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.print()?;
            return Ok(1);
        }
        Err(error) => return Err(usage(&error, &args).into()),
    };
    let globals = Globals { root: matches.remove_one("root"), debug: matches.get_flag("debug"), began };
    let Some((name, matches)) = matches.subcommand() else { anyhow::bail!("no command was given") };
    let entry = commands::ALL.iter().find(|entry| entry.name == name);
    let Some(entry) = entry else { anyhow::bail!("'{name}' is not a dewar command") };
    (entry.run)(matches, &globals)
}

/// Runs what this process was asked to.
pub fn run() -> anyhow::Result<u8> {
    run_with(std::env::args_os())
}

/// Clap's complaint in docker's words.
fn usage(error: &clap::Error, args: &[OsString]) -> Usage {
    let verb = args.iter().skip(1).filter_map(|a| a.to_str()).find(|a| commands::ALL.iter().any(|e| e.name == *a));
    let command = verb.map_or_else(|| "dewar".to_owned(), |verb| format!("dewar {verb}"));
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let argument = text(ContextKind::InvalidArg);
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with("--") => format!("unknown flag: {flag}"),
        ErrorKind::UnknownArgument if flag.starts_with('-') => format!("unknown shorthand flag: {flag}"),
        ErrorKind::UnknownArgument => format!("unexpected argument: {flag}"),
        ErrorKind::InvalidSubcommand => {
            format!("'{}' is not a dewar command", text(ContextKind::InvalidSubcommand))
        }
        ErrorKind::MissingRequiredArgument => format!("missing argument: {}", argument.trim()),
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue);
            let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
            let cause = if cause.is_empty() { possible(error) } else { cause };
            format!("invalid argument \"{value}\" for \"{flag}\" flag{cause}")
        }
        ErrorKind::NoEquals => format!("flag needs an argument: {flag}"),
        ErrorKind::ArgumentConflict => {
            format!("conflicting options: {flag} and {}", text(ContextKind::PriorArg))
        }
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    Usage { message, command }
}

fn possible(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => format!(": must be one of {}", values.join(", ")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        let args = std::iter::once("dewar").chain(line.split(' ').filter(|a| !a.is_empty())).map(OsString::from);
        run_with(args).expect_err("is refused").to_string()
    }

    #[test]
    fn every_verb_s_arguments_are_well_formed() {
        command().debug_assert();
        for entry in commands::ALL {
            (entry.augment)(Command::new(entry.name)).debug_assert();
        }
    }

    #[test]
    fn complaints_are_docker_s() {
        for (line, expected) in [
            ("run --bogus x", "unknown flag: --bogus\nRun 'dewar run --help' for more information"),
            ("run -Z x", "unknown shorthand flag: -Z"),
            ("bogus", "'bogus' is not a dewar command\nRun 'dewar --help'"),
            ("run -m 5x busybox", "invalid argument \"5x\" for \"--memory\" flag: invalid size: '5x'"),
            ("run --ulimit x=1 b", "invalid argument \"x=1\" for \"--ulimit\" flag: invalid ulimit type: x"),
            ("run --pull sometimes b", "invalid argument \"sometimes\" for \"--pull\" flag: must be one of"),
            ("run", "missing argument: "),
            ("run -m", "flag needs an argument: --memory"),
            ("rm", "missing argument: "),
        ] {
            let text = complaint(line);
            assert!(text.starts_with(expected), "{line}: {text}");
        }
    }
}
