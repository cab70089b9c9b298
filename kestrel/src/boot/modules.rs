//! Kernel modules of the base initramfs: `/.volant/modules/NNN-<name>.ko`, loaded in that order (man 2 finit_module).

use std::ffi::OsString;
use std::fs;
use std::path::Path;

const FOLDER: &str = "/.volant/modules";

/// Loads every module and frees the memory that its file takes. Returns what went wrong as sentences.
pub fn load_all() -> Vec<String> {
    let mut names: Vec<OsString> = match fs::read_dir(FOLDER) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().ends_with(".ko")).collect(),
        Err(_) => return Vec::new(),
    };
    names.sort();
    let problems = load_in_rounds(&names, |name| load(&Path::new(FOLDER).join(name)));
    let _ = fs::remove_dir_all(FOLDER);
    problems
}

/// How loading one module ended.
enum Outcome {
    Done,
    /// A symbol is missing: another module may bring it.
    Again,
    Failed(String),
}

fn load(path: &Path) -> Outcome {
    let result = fs::File::open(path).and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
    match result.as_ref().map_err(|cause| cause.raw_os_error()) {
        // EEXIST: built in or loaded. ENODEV: there is no such hardware here.
        Ok(()) | Err(Some(libc::EEXIST | libc::ENODEV)) => Outcome::Done,
        Err(Some(libc::ENOENT)) => Outcome::Again,
        Err(_) => Outcome::Failed(result.err().map(|cause| cause.to_string()).unwrap_or_default()),
    }
}

fn load_in_rounds<T: AsRef<std::ffi::OsStr>>(names: &[T], mut load: impl FnMut(&T) -> Outcome) -> Vec<String> {
    let mut problems = Vec::new();
    let mut waiting: Vec<&T> = names.iter().collect();
    loop {
        let before = waiting.len();
        waiting.retain(|name| match load(name) {
            Outcome::Done => false,
            Outcome::Again => true,
            Outcome::Failed(cause) => {
                problems.push(format!("module {}: {cause}", name.as_ref().to_string_lossy()));
                false
            }
        });
        if waiting.is_empty() {
            return problems;
        }
        if waiting.len() == before {
            problems.extend(
                waiting.iter().map(|name| format!("module {}: a symbol that it needs is missing", name.as_ref().to_string_lossy())),
            );
            return problems;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_wrong_order_is_put_right_and_a_missing_symbol_ends() {
        let needs = |name: &str| match name {
            "001-virtio.ko" => "002-virtio_ring.ko",
            "003-orphan.ko" => "none",
            _ => "",
        };
        let mut loaded = HashSet::new();
        let problems = load_in_rounds(&["001-virtio.ko", "002-virtio_ring.ko", "003-orphan.ko", "004-bad.ko"], |name| {
            if *name == "004-bad.ko" {
                return Outcome::Failed("bad format".into());
            }
            if needs(name).is_empty() || loaded.contains(needs(name)) {
                loaded.insert(*name);
                return Outcome::Done;
            }
            Outcome::Again
        });
        assert!(loaded.contains("001-virtio.ko"));
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().any(|p| p.contains("003-orphan")) && problems.iter().any(|p| p.contains("bad format")));
    }
}
