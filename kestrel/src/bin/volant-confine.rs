//! The last program of volantd's that a hypervisor is: it gives up every privilege and becomes the program that it is told to run. util-linux's setpriv and
//! prlimit do the same in two programs more, and look up the ids in the host's name services, which may ask the network.
//!
//! `volant-confine --uid N --gid N [--group N]… --file-bytes N [--open-files N] [--oom-score-adj N] PROGRAM [ARGUMENT]…`
//!
//! All or nothing: where a privilege can't be given up, no program is run, and the exit status is 126, or 127 where there is no such program. Signals, the session
//! and descriptors are left as they are.

// The standard library's own start-up would add handlers, a stack for them and a look at its memory to each start of a VM.
#![cfg_attr(not(test), no_main)]

use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

const REFUSED: i32 = 126;
const NOT_FOUND: i32 = 127;
/// A set of capabilities has so many bits (capget(2)); the kernel uses the lower ones.
const CAPABILITIES: u32 = u64::BITS;

#[derive(Debug, Default, PartialEq)]
struct Confinement {
    uid: u32,
    gid: u32,
    /// Groups besides that one.
    groups: Vec<u32>,
    /// The most that a file which is written to may grow to.
    file_bytes: u64,
    open_files: Option<u64>,
    /// proc_pid_oom_score_adj(5).
    oom_score_adj: Option<i16>,
    /// The program and its arguments.
    command: Vec<OsString>,
}

impl Confinement {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut uid, mut gid, mut file_bytes) = (None, None, None);
        let mut confinement = Self::default();
        loop {
            let word = words.next().ok_or("there is no program to run")?;
            let Some(option) = word.to_str().filter(|text| text.starts_with("--")) else {
                confinement.command = [word].into_iter().chain(words).collect();
                break;
            };
            let value = words.next().unwrap_or_default();
            match option {
                "--uid" => uid = Some(number(option, &value)?),
                "--gid" => gid = Some(number(option, &value)?),
                "--group" => confinement.groups.push(number(option, &value)?),
                "--file-bytes" => file_bytes = Some(number(option, &value)?),
                "--open-files" => confinement.open_files = Some(number(option, &value)?),
                "--oom-score-adj" => confinement.oom_score_adj = Some(number(option, &value)?),
                _ => return Err(format!("{option} is no option")),
            }
        }
        confinement.uid = id("--uid", uid)?;
        confinement.gid = id("--gid", gid)?;
        confinement.file_bytes = file_bytes.ok_or("--file-bytes is missing")?;
        Ok(confinement)
    }

    /// Gives everything up, for good. What needs a privilege comes before that privilege goes.
    fn enter(&self) -> Result<(), String> {
        if let Some(score) = self.oom_score_adj {
            // Where the host forbids it the default serves.
            let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
        }
        limit(Resource::Fsize, self.file_bytes)?;
        limit(Resource::Core, 0)?;
        if let Some(count) = self.open_files {
            limit(Resource::Nofile, count)?;
        }
        for bit in 0..CAPABILITIES {
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
                Ok(()) => {}
                // The kernel knows none from here on.
                Err(Errno::INVAL) if bit > 0 => break,
                Err(cause) => return Err(refused("a capability can't be removed from the bounding set", cause)),
            }
        }
        let groups: Vec<Gid> = self.groups.iter().map(|&group| Gid::from_raw(group)).collect();
        set_thread_groups(&groups).map_err(|cause| refused("its groups can't be set", cause))?;
        let gid = Gid::from_raw(self.gid);
        set_thread_res_gid(gid, gid, gid).map_err(|cause| refused("its group can't be set", cause))?;
        let uid = Uid::from_raw(self.uid);
        set_thread_res_uid(uid, uid, uid).map_err(|cause| refused("its user can't be set", cause))?;
        clear_ambient_capability_set().map_err(|cause| refused("ambient capabilities can't be given up", cause))?;
        let none =
            CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
        set_capabilities(None, none).map_err(|cause| refused("capabilities can't be given up", cause))?;
        set_no_new_privs(true).map_err(|cause| refused("new privileges can't be refused", cause))
    }
}

fn number<T: std::str::FromStr>(option: &str, value: &OsString) -> Result<T, String> {
    let text = value.to_str().filter(|text| !text.starts_with('+'));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("{option} takes a number, and {} is none", value.display()))
}

/// An id that confines: not root's, nor the one that stands for "leave it as it is" (setresuid(2)).
fn id(option: &str, value: Option<u32>) -> Result<u32, String> {
    match value {
        None => Err(format!("{option} is missing")),
        Some(number @ (0 | u32::MAX)) => Err(format!("{option} {number} is nobody to be confined as")),
        Some(number) => Ok(number),
    }
}

fn limit(resource: Resource, most: u64) -> Result<(), String> {
    let both = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, both).map_err(|cause| refused(&format!("the limit {resource:?} can't be set"), cause))
}

fn refused(what: &str, cause: impl Display) -> String {
    format!("{what}: {cause}")
}

fn fail(status: i32, problem: &str) -> ! {
    eprintln!("volant-confine: {problem}");
    exit(status)
}

/// The C library's entry.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    run()
}

#[cfg_attr(test, allow(dead_code))]
fn run() -> ! {
    let confinement = Confinement::parse(std::env::args_os().skip(1)).unwrap_or_else(|problem| fail(REFUSED, &problem));
    if let Err(problem) = confinement.enter() {
        fail(REFUSED, &problem);
    }
    let [program, arguments @ ..] = confinement.command.as_slice() else { fail(REFUSED, "there is no program to run") };
    let cause = Command::new(program).args(arguments).exec();
    let status = if cause.kind() == ErrorKind::NotFound { NOT_FOUND } else { REFUSED };
    fail(status, &refused(&program.display().to_string(), cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Confinement, String> {
        Confinement::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_end_at_the_program_and_what_follows_is_its_own() {
        let words = ["--uid", "5", "--gid", "6", "--group", "108", "--group", "9", "--file-bytes", "100", "--open-files", "7"];
        let command = ["--oom-score-adj", "-200", "/usr/bin/qemu", "--uid", "0"];
        let expected = Confinement {
            uid: 5,
            gid: 6,
            groups: vec![108, 9],
            file_bytes: 100,
            open_files: Some(7),
            oom_score_adj: Some(-200),
            command: ["/usr/bin/qemu", "--uid", "0"].map(OsString::from).to_vec(),
        };
        assert_eq!(parse(&[words.as_slice(), &command].concat()), Ok(expected));
    }

    #[test]
    fn nothing_is_left_to_a_default_and_root_is_no_confinement() {
        for (words, problem) in [
            (vec!["--gid", "6", "--file-bytes", "1", "true"], "--uid is missing"),
            (vec!["--uid", "5", "--file-bytes", "1", "true"], "--gid is missing"),
            (vec!["--uid", "5", "--gid", "6", "true"], "--file-bytes is missing"),
            (vec!["--uid", "0", "--gid", "6", "--file-bytes", "1", "true"], "--uid 0 is nobody to be confined as"),
            (vec!["--uid", "5", "--gid", "4294967295", "--file-bytes", "1", "true"], "--gid 4294967295 is nobody to be confined as"),
            (vec!["--uid", "-1", "true"], "--uid takes a number, and -1 is none"),
            (vec!["--uid", "+5", "true"], "--uid takes a number, and +5 is none"),
            (vec!["--uid", "4294967296", "true"], "--uid takes a number, and 4294967296 is none"),
            (vec!["--user", "5", "true"], "--user is no option"),
            (vec!["--uid", "5", "--gid", "6", "--file-bytes", "1"], "there is no program to run"),
            (vec!["--uid"], "--uid takes a number, and  is none"),
        ] {
            assert_eq!(parse(&words), Err(problem.to_owned()), "{words:?}");
        }
    }
}
