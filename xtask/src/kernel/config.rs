//! Kernel configurations as text: fragments are merged, and the result is compared with what was asked for.

use std::collections::BTreeMap;

/// Option → the line that a `.config` must hold (`None`: the option must not be set).
type Requests<'a> = BTreeMap<&'a str, Option<&'a str>>;

/// A request that the resulting configuration does not honour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub requested: String,
    /// The option's line in the result, if it has one.
    pub found: Option<String>,
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{} became {found}", self.requested),
            None => write!(f, "{} is gone (a dependency is missing, or no such option exists)", self.requested),
        }
    }
}

/// What one line says about which option. Comments and empty lines say nothing.
fn parse(line: &str) -> Option<(&str, Option<&str>)> {
    if let Some(name) = line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set")) {
        return Some((name, None));
    }
    let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    Some((name, (value != "n").then_some(line)))
}

fn requests<'a>(fragments: &[&'a str]) -> Requests<'a> {
    fragments.iter().flat_map(|text| text.lines()).filter_map(|line| parse(line.trim_end())).collect()
}

/// One text that says each thing once, in the order of the fragments; a later line overrides an earlier one.
pub fn merge(fragments: &[&str]) -> String {
    let lines: Vec<&str> = fragments.iter().flat_map(|text| text.lines()).map(str::trim_end).collect();
    let last: BTreeMap<&str, usize> =
        lines.iter().enumerate().filter_map(|(at, line)| parse(line).map(|(name, _)| (name, at))).collect();
    let kept = lines.iter().enumerate().filter(|(at, line)| parse(line).is_some_and(|(name, _)| last[name] == *at));
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

/// Requests of the fragments that `config` does not honour, by name.
pub fn dropped(fragments: &[&str], config: &str) -> Vec<Dropped> {
    let result = requests(&[config]);
    requests(fragments)
        .into_iter()
        .filter_map(|(name, line)| {
            let found = result.get(name).copied().flatten();
            (found != line).then(|| Dropped {
                requested: line.map_or_else(|| format!("# CONFIG_{name} is not set"), str::to_owned),
                found: found.map(str::to_owned),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_fragment_wins_and_comments_say_nothing() {
        let merged = merge(&["# words\nCONFIG_A=y\n# CONFIG_B is not set\n", "CONFIG_B=\"x y\"\nCONFIG_A=n\n"]);
        assert_eq!(merged, "CONFIG_B=\"x y\"\nCONFIG_A=n\n");
    }

    #[test]
    fn honoured_requests_are_not_reported() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=32\n";
        assert!(
            dropped(&["CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_N=32\n"], config).is_empty()
        );
    }

    #[test]
    fn dropped_changed_and_forced_options_are_reported() {
        let config = "CONFIG_N=64\nCONFIG_FORCED=y\n# CONFIG_OFF is not set\n";
        let found = dropped(&["CONFIG_GONE=y\nCONFIG_N=32\n# CONFIG_FORCED is not set\nCONFIG_OFF=y\n"], config);
        let names: Vec<&str> = found.iter().map(|dropped| dropped.requested.as_str()).collect();
        assert_eq!(names, ["# CONFIG_FORCED is not set", "CONFIG_GONE=y", "CONFIG_N=32", "CONFIG_OFF=y"]);
        assert_eq!(found[2].to_string(), "CONFIG_N=32 became CONFIG_N=64");
    }
}
