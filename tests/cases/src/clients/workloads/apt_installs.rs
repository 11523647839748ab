//! apt-get installs a package and what it needs from a folder, a volume that is read-only, with no network: dpkg's renames,
//! links, owners and syncs, apt's unprivileged helper, maintainers' scripts.

use anyhow::{Result, ensure};

use super::{Engine, packages};

const SCRIPT: &str = r#"
set -e
apt-get install -y /packages/*.deb >&2
dpkg --audit
dpkg-query -W -f '${db:Status-Status}\n' jq libjq1 libonig5
echo '{"numbers": [1, 2, 39]}' | jq '.numbers | add'
apt-get purge -y --auto-remove jq libjq1 libonig5 >&2
test ! -e /usr/bin/jq
"#;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let volume = format!("{}:/packages:ro", packages()?.display());
    let told = podman.sh(&["-v", &volume], SCRIPT)?;
    ensure!(told == "installed\ninstalled\ninstalled\n42", "{told}");
    Ok(())
}
