//! Progress of loads and pulls on standard error: bars on a terminal, a line for each finished layer elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dewar_runtime::images::{Event, Progress};

use super::units::size;

const BAR: usize = 50;

/// What was last told about each layer.
#[derive(Default)]
pub struct Bars {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were first heard of.
    lines: Vec<String>,
    places: BTreeMap<String, usize>,
    /// How many of the lines are on the terminal.
    drawn: usize,
    /// Percent last drawn, so that nothing is drawn twice.
    percent: BTreeMap<usize, u64>,
}

impl Bars {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves what was drawn standing, and begins anew below it.
    pub fn finish(&self) {
        *self.state() = State::default();
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state();
        let (layer, text, percent) = match event {
            Event::Message(text) => {
                eprintln!("{}", printable(text));
                return;
            }
            Event::LayerExists { layer } => (layer, "Already exists".to_owned(), None),
            Event::LayerDone { layer } => (layer, "Complete".to_owned(), None),
            Event::LayerAdvanced { layer, done, total } => {
                let percent = done.min(total).saturating_mul(100).checked_div(total).unwrap_or(0);
                (layer, bar(done, total, percent), Some(percent))
            }
            // The list of events may grow.
            _ => return,
        };
        state.tell(layer.short(), &text, percent);
    }
}

impl State {
    fn tell(&mut self, layer: &str, text: &str, percent: Option<u64>) {
        let next = self.lines.len();
        let place = *self.places.entry(layer.to_owned()).or_insert(next);
        let line = format!("{layer}: {text}");
        match self.lines.get_mut(place) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
        if !std::io::stderr().is_terminal() {
            if percent.is_none() {
                eprintln!("{layer}: {text}");
            }
            return;
        }
        let unchanged = percent.is_some() && self.percent.get(&place) == percent.as_ref();
        if !unchanged {
            if let Some(percent) = percent {
                self.percent.insert(place, percent);
            }
            self.draw();
        }
    }

    fn draw(&mut self) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &self.lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        self.drawn = self.lines.len();
        // Progress that cannot be shown is no reason to stop.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

fn bar(done: u64, total: u64, percent: u64) -> String {
    let filled = usize::try_from(percent / 2).unwrap_or(BAR).min(BAR);
    let arrow = if filled == BAR { "" } else { ">" };
    format!("[{}{arrow:<rest$}] {}/{}", "=".repeat(filled), size(done), size(total), rest = BAR - filled)
}

/// A registry or an archive may have written it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_one_width() {
        let widths: Vec<usize> = [0, 1, 50, 99, 100].map(|p| bar(0, 0, p).find(']').expect("a bar")).to_vec();
        assert_eq!(widths, [BAR + 1; 5]);
        assert_eq!(bar(1500, 3000, 50), format!("[{}>{}] 1.5kB/3kB", "=".repeat(25), " ".repeat(24)));
    }
}
