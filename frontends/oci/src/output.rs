//! Tables and JSON of `list` and `ps`.

use std::fmt::Write;

use dewar_protocol::ProcessInfo;
use dewar_runtime::oci::State;

/// Columns as wide as their widest cell and three blanks.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}", width = width + 3);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub fn list(states: &[State]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec();
    let rows = states.iter().map(|state| {
        vec![
            state.id.clone(),
            state.pid.to_string(),
            state.status.as_str().to_owned(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    });
    table(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

/// As `ps -ef`; ids are the guest's.
pub fn processes(rows: &[ProcessInfo]) -> String {
    let mut text =
        format!("{:<8} {:>7} {:>7} {:>2} {:>5} {:<8} {:>8} CMD\n", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME");
    for row in rows {
        let seconds = row.cpu_ticks / 100;
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let started = row.started_ticks / 100;
        let since = format!("{:02}:{:02}", started / 3600 % 24, started / 60 % 60);
        let _ = writeln!(
            text,
            "{:<8} {:>7} {:>7} {:>2} {since:>5} {:<8} {time:>8} {}",
            row.user, row.pid, row.ppid, 0, row.tty, row.command
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["ID".into(), "PID".into()], vec!["longer".into(), "1".into()]];
        assert_eq!(table(&rows), "ID       PID\nlonger   1\n");
    }
}
