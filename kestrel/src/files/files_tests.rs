//! Whole trees through both directions, in a directory of the test's own.

use super::pack::Source;
use super::tar::{Entry, Kind, encode, encode_end};
use super::unpack::{Written, write_archive, write_file};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!("kestrel-files-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).expect("a folder").flatten().map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn packed(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Source::open(path).expect("a source").pack(&mut bytes).expect("an archive");
    bytes
}

/// A copy's directories and links are as young as the copy: gives all of them the same time, so that two trees can be compared in any second.
fn aged(path: PathBuf) -> PathBuf {
    let touch = ["!", "-type", "f", "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"];
    assert!(Command::new("find").arg(&path).args(touch).status().expect("find").success());
    path
}

fn entry(name: &str, kind: Kind, target: &str) -> Vec<u8> {
    encode(&Entry { name: name.into(), kind, mode: 0o644, mtime: 0, size: 0, target: target.into() })
}

fn code(result: Result<Written, crate::error::AgentError>) -> &'static str {
    result.map_or_else(|error| error.code, |_| "written")
}

fn sample(folder: &Folder) -> PathBuf {
    let tree = folder.at("tree");
    fs::create_dir_all(tree.join("deep/er")).expect("a folder");
    fs::write(tree.join("deep/er/file"), vec![7u8; 200_000]).expect("a file");
    fs::write(tree.join("empty"), "").expect("a file");
    fs::write(tree.join("n".repeat(150)), "long").expect("a file");
    fs::set_permissions(tree.join("empty"), Permissions::from_mode(0o4711)).expect("a mode");
    symlink("deep/er/file", tree.join("link")).expect("a link");
    tree
}

#[test]
fn a_tree_comes_out_as_it_went_in_under_a_new_name_and_into_a_directory() {
    let folder = Folder::new();
    let bytes = packed(&sample(&folder));
    fs::create_dir(folder.at("into")).expect("a folder");
    let written = write_archive(&bytes[..], &folder.at("copy")).expect("written");
    assert_eq!(written, Written { files: 4, bytes: 200_004, left_out: 0 });
    write_archive(&bytes[..], &folder.at("into")).expect("written");
    for copy in [folder.at("copy"), folder.at("into/tree")] {
        assert_eq!(fs::read(copy.join("deep/er/file")).expect("a file"), vec![7u8; 200_000]);
        assert_eq!(fs::metadata(copy.join("empty")).expect("a file").mode() & 0o7777, 0o4711);
        assert_eq!(fs::read_link(copy.join("link")).expect("a link"), Path::new("deep/er/file"));
        assert_eq!(fs::read(copy.join("n".repeat(150))).expect("a file"), b"long");
    }
    assert_eq!(packed(&folder.at("into/tree")).len(), bytes.len());
}

#[test]
fn another_tar_reads_what_is_packed_and_packs_what_is_read() {
    let folder = Folder::new();
    let tree = sample(&folder);
    fs::write(folder.at("a.tar"), packed(&tree)).expect("a file");
    fs::create_dir(folder.at("out")).expect("a folder");
    let unpacked = Command::new("tar").arg("-xf").arg(folder.at("a.tar")).arg("-C").arg(folder.at("out")).status().expect("tar");
    assert!(unpacked.success());
    assert_eq!(fs::read(folder.at("out/tree/deep/er/file")).expect("a file").len(), 200_000);
    for format in ["gnu", "ustar", "pax", "v7"] {
        let archive =
            Command::new("tar").args(["-c", "--format", format, "-C"]).arg(&tree).args(["deep", "empty", "link"]).output().expect("tar");
        fs::create_dir(folder.at(format)).expect("a folder");
        write_archive(&archive.stdout[..], &folder.at(format)).expect(format);
        assert_eq!(packed(&aged(folder.at(&format!("{format}/deep")))), packed(&aged(tree.join("deep"))), "{format}");
    }
}

#[test]
fn names_that_lead_out_of_the_place_are_refused() {
    let folder = Folder::new();
    let inside = folder.at("inside");
    fs::create_dir(&inside).expect("a folder");
    for name in ["../x", "a/../../x", "/etc/x", ".."] {
        let bytes = [entry(name, Kind::File, ""), encode_end(&[])].concat();
        assert_eq!(code(write_archive(&bytes[..], &inside)), "invalid", "{name}");
    }
    let through = [entry("l", Kind::Symlink, ".."), entry("l/x", Kind::File, ""), encode_end(&[])].concat();
    assert_eq!(code(write_archive(&through[..], &inside)), "not_a_directory");
    assert_eq!(folder.names(), ["inside"]);
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    struct Breaks;
    impl Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }
    let folder = Folder::new();
    fs::write(folder.at("old"), "old").expect("a file");
    symlink("old", folder.at("link")).expect("a link");
    assert_eq!(code(write_file((&b"half"[..]).chain(Breaks), &folder.at("link"), 0o600)), "invalid");
    assert_eq!(fs::read(folder.at("old")).expect("a file"), b"old");
    assert_eq!(folder.names(), ["link", "old"]);
    assert_eq!(code(write_file(&b"new"[..], &folder.at("link"), 0o600)), "written");
    assert_eq!(fs::read(folder.at("old")).expect("a file"), b"new");
    assert_eq!(fs::metadata(folder.at("old")).expect("a file").mode() & 0o7777, 0o600);
    assert_eq!(folder.names(), ["link", "old"]);
}

#[test]
fn what_can_not_be_is_said() {
    let folder = Folder::new();
    fs::write(folder.at("file"), "x").expect("a file");
    let one = [entry("a", Kind::File, ""), encode_end(&[])].concat();
    let two = [entry("a", Kind::File, ""), entry("b", Kind::File, ""), encode_end(&[])].concat();
    let tree = [entry("a", Kind::Directory, ""), encode_end(&[])].concat();
    assert_eq!(code(write_file(&b""[..], &folder.0, 0o644)), "is_directory");
    assert_eq!(code(write_archive(&one[..], &folder.at("none/x"))), "not_found");
    assert_eq!(code(write_archive(&one[..], Path::new(&format!("{}/", folder.at("none").display())))), "not_found");
    assert_eq!(code(write_archive(&two[..], &folder.at("new"))), "not_a_directory");
    assert_eq!(code(write_archive(&tree[..], &folder.at("file"))), "not_a_directory");
    assert_eq!(Source::open(&folder.at("none")).err().map(|error| error.code), Some("not_found"));
    assert_eq!(Source::open(Path::new("/dev/null")).err().map(|error| error.code), Some("not_a_file"));
    assert_eq!(code(write_file(&b"x"[..], Path::new("/dev/full"), 0o644)), "not_a_file");
}

#[test]
fn files_without_a_size_are_read_and_other_file_systems_are_not() {
    let version = packed(Path::new("/proc/version"));
    assert!(String::from_utf8_lossy(&version).contains("Linux version"));
    let folder = Folder::new();
    let socket = std::os::unix::net::UnixListener::bind(folder.at("socket")).expect("a socket");
    let text = String::from_utf8_lossy(&packed(&folder.0)).into_owned();
    assert!(text.contains("VOLANT.left_out=1"));
    drop(socket);
}

#[test]
fn a_tree_as_deep_as_paths_allow_is_packed_on_a_small_stack() {
    let folder = Folder::new();
    let mut path = folder.at("d");
    while path.as_os_str().len() < 4000 {
        path.push("d");
    }
    fs::create_dir_all(&path).expect("a deep folder");
    let (deep, top) = (path, folder.at("d"));
    let depth = deep.components().count() - top.components().count() + 1;
    let bytes =
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || packed(&top)).expect("a thread").join().expect("an archive");
    let mut reader = super::tar_reader::Reader::new(&bytes[..]);
    let mut count = 0;
    while reader.next().expect("an archive").is_some() {
        count += 1;
    }
    assert_eq!(count, depth);
}
