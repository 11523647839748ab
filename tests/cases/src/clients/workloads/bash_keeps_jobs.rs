//! bash: jobs that stop and go on at a terminal; process substitution, coprocesses, traps and background jobs in a script.

use anyhow::{Result, ensure};

use super::Engine;

const SCRIPT: &str = r#"
set -e
mapfile -t lines < <(printf '%s\n' one two three)
echo "${#lines[@]} ${lines[2]}"
coproc { while read -r word; do echo "${word^^}"; done; }
echo loud >&"${COPROC[1]}"
read -r heard <&"${COPROC[0]}"
echo "$heard"
trap 'echo trapped' USR1
kill -USR1 $$
(exit 3) & jobs=($!)
(exit 4) & jobs+=($!)
codes=0
for job in "${jobs[@]}"; do wait "$job" || codes=$((codes + $?)); done
echo "$codes"
paste -d: <(seq 3) <(seq 4 6) | tee >(wc -l >/tmp/count) | tail -1
until test -s /tmp/count; do :; done
cat /tmp/count
cat <<<"$(seq 100000 | sort -rn | sed -n '1p;$p' | xargs)"
"#;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let told = podman.run(&["--rm"], &["bash", "-c", SCRIPT])?.success()?;
    ensure!(told == "3 three\nLOUD\ntrapped\n7\n3:6\n3\n100000 1\n", "{told}");

    let mut terminal = podman.terminal(&podman.run_args(&["--rm", "-it"], &["bash", "--norc"]))?;
    terminal.expect("# ")?;
    terminal.type_text("sh -c 'echo be''gun; read line; echo got $line'\n")?;
    terminal.expect("begun")?;
    terminal.type_text("\x1a")?;
    terminal.expect("Stopped")?;
    terminal.expect("# ")?;
    terminal.type_text("fg\n")?;
    terminal.expect("read line")?;
    terminal.type_text("it\n")?;
    terminal.expect("got it")?;
    terminal.type_text("exit 9\n")?;
    let (_, code) = terminal.finish()?;
    ensure!(code == 9, "exit code {code}");
    Ok(())
}
