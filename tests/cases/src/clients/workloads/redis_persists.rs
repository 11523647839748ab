//! Redis answers redis-benchmark, forks to save and to rewrite its log, and is killed; the next one has every answered write.

use anyhow::{Result, ensure};

use super::Engine;

const SCRIPT: &str = r#"
set -e
start() {
    redis-server --dir /data --appendonly yes --appendfsync always --save "" --unixsocket /tmp/redis --port 6379 >>/tmp/log &
    server=$!
    until test "$(redis-cli -s /tmp/redis ping 2>/dev/null)" = PONG; do kill -0 $server; done
}
# Until one of the server's forks has done its work; INFO's lines end with CR LF.
idle() { until redis-cli info persistence | tr -d '\r' | grep -qx "$1:0"; do kill -0 $server; done; }
start
redis-benchmark -q -n 1000 -c 20 -t set,get,lpush >&2
for i in 1 2 3; do redis-cli incrby counter $i >/dev/null; done
redis-cli bgsave >&2
idle rdb_bgsave_in_progress
redis-cli bgrewriteaof >&2
idle aof_rewrite_in_progress
redis-cli incrby counter 36 >/dev/null
redis-cli info persistence | tr -d '\r' | grep -E '^(rdb_last_bgsave|aof_last_bgrewrite|aof_last_write)_status'
kill -KILL $server
wait $server || true
start
redis-cli get counter
redis-cli llen mylist
redis-cli shutdown save
wait $server
redis-check-rdb /data/dump.rdb >&2
"#;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let volume = podman.host.name();
    let told = podman.run(&["--rm", "-v", &format!("{volume}:/data")], &["bash", "-c", SCRIPT])?.success()?;
    let statuses = "rdb_last_bgsave_status:ok\naof_last_bgrewrite_status:ok\naof_last_write_status:ok\n";
    ensure!(told == format!("{statuses}42\n1000\n"), "{told}");
    podman.ok(&["volume", "rm", &volume])?;
    Ok(())
}
