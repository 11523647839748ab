//! `ctr run -t` and `ctr task exec -t` are terminals.

use anyhow::{Result, ensure};

use super::{Ctr, terminal};

pub fn run(ctr: &Ctr<'_>) -> Result<()> {
    let name = ctr.host.name();
    let mut outer = terminal(ctr.run(&["--rm", "-t"], &name, &["sh"]))?;
    outer.expect("# ")?;
    outer.type_text("stty size; echo rea''dy\n")?;
    outer.expect("30 100")?;
    outer.expect("ready")?;
    let mut inner = terminal(ctr.session(&["task", "exec", "-t", "--exec-id", "inner", &name, "sh"]))?;
    inner.expect("# ")?;
    inner.type_text("tty; echo do''ne; exit 4\n")?;
    inner.expect("/dev/pts/1")?;
    inner.expect("done")?;
    ensure!(inner.finish()?.1 == 4);
    outer.type_text("exit 5\n")?;
    ensure!(outer.finish()?.1 == 5);
    Ok(())
}
