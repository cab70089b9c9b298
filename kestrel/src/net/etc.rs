//! /etc/hostname, /etc/hosts and /etc/resolv.conf: their text (pure), and writing it whatever the plugin's image has there.

use crate::error::AgentError;
use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Marks the lines of /etc/hosts that are ours.
const MARK: &str = "# volant";
/// An /etc/hosts larger than this is replaced, not merged.
const LARGEST_HOSTS: u64 = 64 * 1024;

/// The text of resolv.conf (man 5 resolv.conf; the C library reads the first three nameservers).
pub fn resolv_conf(nameservers: &[IpAddr], search: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// The image's own lines, then ours: localhost unless the image names it, and the host's name.
pub fn hosts(existing: &str, hostname: &str, address: Option<IpAddr>) -> String {
    let mut text: String = existing.lines().filter(|line| !line.ends_with(MARK)).map(|line| format!("{line}\n")).collect();
    let names_localhost =
        text.lines().any(|line| line.split('#').next().unwrap_or("").split_ascii_whitespace().skip(1).any(|name| name == "localhost"));
    if !names_localhost {
        text.push_str(&format!("127.0.0.1 localhost {MARK}\n::1 localhost {MARK}\n"));
    }
    let own = address.map_or_else(|| "127.0.1.1".to_owned(), |ip| ip.to_string());
    text.push_str(&format!("{own} {hostname} {MARK}\n"));
    text
}

/// Writes the three files below `etc`. A missing directory is made, a link or file in its place is replaced, and so are links in
/// the files' places: the text lands in /etc itself, wherever a link would have led.
pub fn write(etc: &Path, hostname: &str, address: Option<IpAddr>, nameservers: &[IpAddr], search: &[String]) -> Result<(), AgentError> {
    ensure_directory(etc).map_err(failed(""))?;
    replace(&etc.join("hostname"), &format!("{hostname}\n")).map_err(failed("hostname"))?;
    let existing = read_small(&etc.join("hosts"));
    replace(&etc.join("hosts"), &hosts(&existing, hostname, address)).map_err(failed("hosts"))?;
    if !nameservers.is_empty() || !search.is_empty() {
        replace(&etc.join("resolv.conf"), &resolv_conf(nameservers, search)).map_err(failed("resolv.conf"))?;
    }
    Ok(())
}

fn failed(name: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |cause| AgentError::failed(&format!("writing /etc/{name}"), cause)
}

fn ensure_directory(path: &Path) -> io::Result<()> {
    // A link to a real directory is the image's choice; one that leads nowhere or to something else is in the way.
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    fs::create_dir_all(path)
}

fn read_small(path: &Path) -> String {
    let regular = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() <= LARGEST_HOSTS);
    let mut text = String::new();
    if regular {
        if let Ok(file) = fs::File::open(path) {
            // A file that is not UTF-8 is replaced like one that is too large.
            if file.take(LARGEST_HOSTS).read_to_string(&mut text).is_err() {
                text.clear();
            }
        }
    }
    text
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("volant-new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(path)?;
    }
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("kestrel-etc-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("scratch");
        path
    }

    fn write_to(etc: &Path) {
        write(etc, "web", Some("10.0.0.2".parse().expect("ip")), &["9.9.9.9".parse().expect("ip")], &["example.org".into()])
            .expect("written");
        assert_eq!(fs::read_to_string(etc.join("hostname")).expect("read"), "web\n");
        assert_eq!(fs::read_to_string(etc.join("resolv.conf")).expect("read"), "search example.org\nnameserver 9.9.9.9\n");
        assert!(fs::read_to_string(etc.join("hosts")).expect("read").contains("10.0.0.2 web"));
    }

    #[test]
    fn a_missing_etc_is_made() {
        let root = scratch("missing");
        write_to(&root.join("etc"));
        fs::remove_dir_all(root).expect("clean");
    }

    #[test]
    fn links_in_the_place_of_etc_and_its_files_are_not_followed() {
        use std::os::unix::fs::symlink;
        let root = scratch("links");
        let etc = root.join("etc");
        symlink("/nowhere/at/all", &etc).expect("link");
        write_to(&etc);
        let victim = root.join("victim");
        fs::write(&victim, "untouched").expect("victim");
        for name in ["hostname", "hosts", "resolv.conf"] {
            fs::remove_file(etc.join(name)).expect("remove");
            symlink(&victim, etc.join(name)).expect("link");
        }
        write_to(&etc);
        assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
        fs::remove_file(etc.join("resolv.conf")).expect("remove");
        fs::create_dir(etc.join("resolv.conf")).expect("dir");
        write_to(&etc);
        fs::remove_dir_all(root).expect("clean");
    }

    #[test]
    fn the_images_own_hosts_stay_and_ours_do_not_pile_up() {
        let once = hosts("127.0.0.1 localhost\n10.9.9.9 db\n", "a", None);
        let twice = hosts(&once, "b", None);
        assert_eq!(twice, format!("127.0.0.1 localhost\n10.9.9.9 db\n127.0.1.1 b {MARK}\n"));
        assert!(hosts("", "a", None).starts_with("127.0.0.1 localhost"));
    }
}
