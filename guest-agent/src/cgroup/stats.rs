//! What a cgroup's counters say. Pure: files come in as text, and what does not parse counts 0.

use dewar_protocol::Stats;

use super::CgroupError;

/// Builds the counters from the files that `read` gives; `None` is a file that the kernel does not have.
pub(super) fn collect(read: impl Fn(&str) -> Result<Option<String>, CgroupError>) -> Result<Stats, CgroupError> {
    let text = |file: &str| read(file).map(Option::unwrap_or_default);
    let cpu = text("cpu.stat")?;
    let memory = text("memory.stat")?;
    let io = IoTotals::parse(&text("io.stat")?);
    Ok(Stats {
        cpu_usage_us: keyed(&cpu, "usage_usec"),
        cpu_user_us: keyed(&cpu, "user_usec"),
        cpu_system_us: keyed(&cpu, "system_usec"),
        cpu_periods: keyed(&cpu, "nr_periods"),
        cpu_throttled_periods: keyed(&cpu, "nr_throttled"),
        cpu_throttled_us: keyed(&cpu, "throttled_usec"),
        memory_current: number(&text("memory.current")?),
        memory_limit: limit(&text("memory.max")?),
        memory_peak: number(&text("memory.peak")?),
        memory_file: keyed(&memory, "file"),
        memory_anon: keyed(&memory, "anon"),
        memory_inactive_file: keyed(&memory, "inactive_file"),
        swap_current: number(&text("memory.swap.current")?),
        oom_kills: keyed(&text("memory.events")?, "oom_kill"),
        pids_current: number(&text("pids.current")?),
        pids_limit: limit(&text("pids.max")?),
        io_read_bytes: io.read_bytes,
        io_write_bytes: io.write_bytes,
        io_reads: io.reads,
        io_writes: io.writes,
    })
}

/// The value of a "flat keyed" file.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .map_or(0, |(_, value)| number(value))
}

pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

pub(super) fn pids(text: &str) -> impl Iterator<Item = u32> {
    // A process of another pid namespace is listed as 0.
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid != 0)
}

/// The sums over all devices of io.stat.
#[derive(Debug, Default, PartialEq, Eq)]
struct IoTotals {
    read_bytes: u64,
    write_bytes: u64,
    reads: u64,
    writes: u64,
}

impl IoTotals {
    fn parse(text: &str) -> Self {
        let mut totals = Self::default();
        let pairs = text.lines().flat_map(str::split_ascii_whitespace).filter_map(|word| word.split_once('='));
        for (key, value) in pairs {
            let total = match key {
                "rbytes" => &mut totals.read_bytes,
                "wbytes" => &mut totals.write_bytes,
                "rios" => &mut totals.reads,
                "wios" => &mut totals.writes,
                _ => continue,
            };
            *total = total.saturating_add(number(value));
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Option<&'static str> {
        Some(match name {
            "cpu.stat" => {
                "usage_usec 50\nuser_usec 30\nsystem_usec 20\nnr_periods 5\nnr_throttled 2\nthrottled_usec 99\n"
            }
            "memory.stat" => "anon 11\nfile 12\nfile_mapped 1\ninactive_anon 9\ninactive_file 13\n",
            "memory.current" => "4096\n",
            "memory.max" => "max\n",
            "memory.events" => "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
            "pids.current" => "3\n",
            "pids.max" => "100\n",
            "io.stat" => {
                "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=6\n254:16 rbytes=100 wbytes=0 rios=3 wios=0\n7:0 \n"
            }
            _ => return None,
        })
    }

    #[test]
    fn counters_are_collected_and_missing_files_count_0() {
        let stats = collect(|name| Ok(file(name).map(str::to_owned))).expect("collects");
        let expected = Stats {
            cpu_usage_us: 50,
            cpu_user_us: 30,
            cpu_system_us: 20,
            cpu_periods: 5,
            cpu_throttled_periods: 2,
            cpu_throttled_us: 99,
            memory_current: 4096,
            memory_limit: None,
            memory_peak: 0,
            memory_file: 12,
            memory_anon: 11,
            memory_inactive_file: 13,
            swap_current: 0,
            oom_kills: 2,
            pids_current: 3,
            pids_limit: Some(100),
            io_read_bytes: 110,
            io_write_bytes: 20,
            io_reads: 4,
            io_writes: 2,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn what_does_not_parse_counts_0() {
        assert_eq!(keyed("a -1\nb 99999999999999999999\nc\nd x\n", "a"), 0);
        assert_eq!(keyed("b 99999999999999999999", "b"), 0);
        let io = IoTotals::parse("8:0 rbytes=18446744073709551615 rbytes=5 =3 wios\n\n8");
        assert_eq!(io, IoTotals { read_bytes: u64::MAX, ..IoTotals::default() });
    }

    #[test]
    fn processes_of_other_namespaces_are_left_out() {
        assert_eq!(pids("1\n0\nx\n42\n").collect::<Vec<_>>(), [1, 42]);
    }
}
