//! The files that docker writes for every container and mounts over the image's own.

use dewar_protocol::GuestFile;

/// `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container without a network.
#[must_use]
pub fn guest_files(hostname: &str) -> Vec<GuestFile> {
    // 127.0.1.1, as Debian has it for machines without a fixed address: programs that look their own name up find one.
    let short = hostname.split('.').next().unwrap_or(hostname);
    let names = if short == hostname { hostname.to_owned() } else { format!("{hostname} {short}") };
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{names}\n"
    );
    let file =
        |path: &str, content: String| GuestFile { path: path.into(), mode: 0o644, content: content.into_bytes() };
    vec![
        file("/etc/hostname", format!("{hostname}\n")),
        file("/etc/hosts", hosts),
        file("/etc/resolv.conf", "# This container has no network.\n".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_finds_its_own_name() {
        let files = guest_files("box.example.org");
        let hosts = files.iter().find(|f| f.path == "/etc/hosts").expect("hosts");
        let text = String::from_utf8(hosts.content.clone()).expect("text");
        assert!(text.lines().any(|l| l == "127.0.1.1\tbox.example.org box"), "{text}");
        assert!(text.lines().any(|l| l == "127.0.0.1\tlocalhost"), "{text}");
        assert_eq!(files[0].content, b"box.example.org\n");
    }
}
