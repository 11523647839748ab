//! PostgreSQL makes a database on a volume, takes pgbench's transactions, loses its processes, and has every one of the
//! transactions in the next container.

use anyhow::{Result, ensure};

use super::Engine;

/// With shared memory of both kinds; what it says is on standard error.
const START: &str = r#"
set -e
export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin) PGHOST=/tmp PGDATA=/data/cluster
start() {
    pg_ctl -w -l /data/log -o "-c listen_addresses= -c unix_socket_directories=/tmp" start >&2 || { cat /data/log >&2; exit 1; }
}
"#;

const FIRST: &str = r"
initdb -A trust >&2
start
pgbench -q -i -s 1 postgres >&2
pgbench -c 2 -t 20 postgres >&2
psql -qAt -c 'select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history' postgres
pg_ctl -w -m immediate stop >&2
";

const SECOND: &str = r"
start
psql -qAt -c 'select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history' postgres
psql -qAt -c 'set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
    set min_parallel_table_scan_size = 0; select count(*), sum(aid) from pgbench_accounts' postgres
grep -c 'automatic recovery in progress' /data/log
pg_ctl -w -m fast stop >&2
";

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let volume = podman.host.name();
    let mount = format!("{volume}:/data");
    // A new volume belongs to root.
    podman.sh(&["-v", &mount], "chown postgres:postgres /data")?;
    let script = |part: &str| podman.sh(&["-v", &mount, "--user", "postgres"], &[START, part].concat());
    let told = script(FIRST)?;
    ensure!(told == "40|t", "{told}");
    let told = script(SECOND)?;
    ensure!(told == "40|t\n100000|5000050000\n1", "{told}");
    podman.ok(&["volume", "rm", &volume])?;
    Ok(())
}
