//! `dewar ps`.

use clap::Args;
use dewar_runtime::container::{Container, ContainerState, ContainerStore, Status};
use dewar_runtime::images::Store;

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::table::{Column, List};
use crate::output::units;

const COLUMNS: [Column; 12] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Networks", "NETWORKS"),
    ("Engine", "ENGINE"),
];
const SHOWN: [&str; 7] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
const COMMAND_WIDTH: usize = 20;

#[derive(Debug, Args)]
pub struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// The NUMBER made last, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// The one made last, running or not
    #[arg(short, long)]
    latest: bool,
    /// Only those with status=, name=, label=, id= or ancestor=
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    /// table, json, or a template such as {{.Names}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Status(String),
    Name(String),
    Label(String, Option<String>),
    Id(String),
    Ancestor(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let own = value.to_owned();
        match key {
            "status" if ["created", "running", "paused", "exited"].contains(&value) => Ok(Self::Status(own)),
            "status" => Err(format!("invalid filter 'status={value}'")),
            "name" => Ok(Self::Name(own)),
            "id" => Ok(Self::Id(own)),
            "ancestor" => Ok(Self::Ancestor(own)),
            "label" => match value.split_once('=') {
                Some((key, value)) => Ok(Self::Label(key.to_owned(), Some(value.to_owned()))),
                None => Ok(Self::Label(own, None)),
            },
            _ => Err(format!("invalid filter '{key}'")),
        }
    }

    fn matches(&self, container: &Container, status: Status, ancestor_ids: &[String]) -> bool {
        let config = &container.config;
        match self {
            Self::Status(wanted) => status.as_str() == wanted,
            Self::Name(part) => config.name.contains(part.trim_start_matches('/')),
            Self::Id(prefix) => config.id.starts_with(prefix.as_str()),
            Self::Label(key, value) => {
                config.labels.get(key).is_some_and(|have| value.as_ref().is_none_or(|wanted| wanted == have))
            }
            Self::Ancestor(name) => config.image.name == *name || ancestor_ids.contains(&config.image.id.to_string()),
        }
    }

    /// As docker: filters of one kind widen, labels narrow, and different kinds narrow.
    fn all_match(filters: &[Self], matches: impl Fn(&Self) -> bool) -> bool {
        filters.iter().all(|filter| match filter {
            Self::Label(..) => matches(filter),
            _ => filters.iter().filter(|f| std::mem::discriminant(*f) == std::mem::discriminant(filter)).any(&matches),
        })
    }
}

impl Verb for Ps {
    const NAME: &'static str = "ps";
    const ABOUT: &'static str = "List containers";
    const USAGE: &'static str = "[OPTIONS]";
    const EXAMPLES: &'static str =
        "  dewar ps -a\n  dewar ps -q --filter label=tier=web\n  dewar ps --format '{{.Names}}: {{.Status}}'";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        let found = self.select(&runtime.containers(), &runtime.images()?)?;
        if self.quiet {
            for (container, _) in &found {
                output::line(self.id(container))?;
            }
            return Ok(0);
        }
        let now = units::now();
        let rows = found.iter().map(|(container, state)| self.row(container, state, now)).collect();
        List { columns: &COLUMNS, shown: &SHOWN, rows }.print(self.format.as_deref())?;
        Ok(0)
    }
}

impl Ps {
    /// Newest first.
    fn select(&self, store: &ContainerStore, images: &Store) -> anyhow::Result<Vec<(Container, ContainerState)>> {
        let last = if self.latest { Some(1) } else { self.last };
        let by_status = self.filter.iter().any(|f| matches!(f, Filter::Status(_)));
        let ancestors = self.filter.iter().filter_map(|f| match f {
            Filter::Ancestor(name) => images.resolve(name).ok().map(|image| image.id.to_string()),
            _ => None,
        });
        let ancestors: Vec<String> = ancestors.collect();
        let mut found = Vec::new();
        for container in store.list()?.into_iter().rev() {
            // One that is being removed at this moment is not there any more.
            let Ok(state) = container.state() else { continue };
            let wanted = self.all || by_status || last.is_some() || state.status.is_live();
            if wanted && Filter::all_match(&self.filter, |f| f.matches(&container, state.status, &ancestors)) {
                found.push((container, state));
            }
        }
        found.truncate(last.unwrap_or(usize::MAX));
        Ok(found)
    }

    fn id<'a>(&self, container: &'a Container) -> &'a str {
        let id = container.config.id.as_str();
        if self.no_trunc { id } else { id.get(..12).unwrap_or(id) }
    }

    fn row(&self, container: &Container, state: &ContainerState, now: u64) -> Vec<String> {
        let config = &container.config;
        let command = config.command.join(" ");
        let command = if self.no_trunc { command } else { shorten(&command, COMMAND_WIDTH) };
        let labels: Vec<String> = config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            self.id(container).to_owned(),
            config.image.name.clone(),
            format!("\"{command}\""),
            units::utc(config.created_ns),
            units::ago(config.created_ns, now),
            status(state, now),
            state.status.as_str().to_owned(),
            String::new(),
            config.name.clone(),
            labels.join(","),
            "none".to_owned(),
            state.engine.unwrap_or(config.engine).as_str().to_owned(),
        ]
    }
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn status(state: &ContainerState, now: u64) -> String {
    let since = |point: Option<u64>| now.saturating_sub(point.unwrap_or(now));
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up {}", units::duration(since(state.started_ns))),
        Status::Paused => format!("Up {} (Paused)", units::duration(since(state.started_ns))),
        Status::Exited => {
            format!("Exited ({}) {} ago", state.exit_code, units::duration(since(state.finished_ns)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_in_docker_s_words() {
        let minute = 60 * 1_000_000_000;
        let state = |status| ContainerState {
            status,
            exit_code: 3,
            started_ns: Some(minute),
            finished_ns: Some(2 * minute),
            ..ContainerState::created()
        };
        assert_eq!(status(&state(Status::Created), 0), "Created");
        assert_eq!(status(&state(Status::Running), 6 * minute), "Up 5 minutes");
        assert_eq!(status(&state(Status::Paused), 6 * minute), "Up 5 minutes (Paused)");
        assert_eq!(status(&state(Status::Exited), 7 * minute), "Exited (3) 5 minutes ago");
        assert_eq!(shorten("sh -c 'sleep 1000; exit 5'", 20), "sh -c 'sleep 1000; …");
    }

    #[test]
    fn filters_of_a_kind_widen_and_kinds_and_labels_narrow() {
        let filters =
            ["name=a", "name=b", "status=running", "label=x", "label=y=1"].map(|f| Filter::parse(f).expect("valid"));
        let accepts =
            |true_ones: &[usize]| Filter::all_match(&filters, |f| true_ones.iter().any(|i| filters.get(*i) == Some(f)));
        assert!(accepts(&[0, 2, 3, 4]));
        assert!(accepts(&[1, 2, 3, 4]));
        assert!(!accepts(&[0, 1, 3, 4]), "the status does not match");
        assert!(!accepts(&[0, 2, 3]), "one label is missing");
        assert_eq!(filters[4], Filter::Label("y".into(), Some("1".into())));
        for text in ["name", "bogus=1", "status=sleeping"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
