//! Stands in for QEMU where a test needs many VMs, or VMs that fail on demand: it takes the arguments that volantd gives QEMU, refuses what QEMU would refuse,
//! holds the tap, answers QMP, and behaves as a hypervisor whose guest has booted and whose agent has called home. It runs no guest: nothing answers on the
//! VM's address.
//!
//! Words of the guest's kernel command line make it misbehave: see [`faults::Faults`].

// The standard library's own start-up would add handlers, a stack for them and a look at its memory to each of a thousand starts.
#![cfg_attr(not(test), no_main)]

mod agent;
mod arguments;
mod console;
mod devices;
mod faults;
mod guest;
mod host;
mod hypervisor;
mod options;
mod qmp;
mod starts;

use crate::arguments::Machine;
use crate::console::Console;
use crate::faults::Faults;
use crate::guest::Guest;
use crate::hypervisor::{Cause, Hypervisor};
use std::io;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

/// The C library's entry.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    begin();
    0
}

#[cfg_attr(test, allow(dead_code))]
fn begin() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "--version" || word == "-version") {
        let (major, minor, micro) = qmp::VERSION;
        println!("QEMU emulator version {major}.{minor}.{micro} (Volant's stand-in, which runs no guest)");
        return;
    }
    let machine = arguments::read(arguments.into_iter()).and_then(|machine| Ok((Faults::parse(&machine.cmdline)?, machine)));
    let (faults, machine) = machine.unwrap_or_else(|problem| fail(&problem));
    if let Err(cause) = starts::note(std::env::args()) {
        fail(&format!("its start can't be noted: {cause}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let ended = runtime.and_then(|runtime| runtime.block_on(run(machine, faults)));
    if let Err(cause) = ended {
        fail(&cause.to_string());
    }
}

fn fail(problem: &str) -> ! {
    eprintln!("volant-stand-in: {problem}");
    std::process::exit(1)
}

async fn run(machine: Machine, faults: Faults) -> io::Result<()> {
    let hypervisor = Rc::new(Hypervisor::new(machine.paused));
    let console = Rc::new(Console::new(machine.console));
    // Held for as long as the process lives: an open tap is what gives its interface a carrier.
    let _tap = machine.tap.map(host::take);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let monitor = machine.monitor.map(|channel| agent::listener(channel.socket)).transpose()?;
    let serial = machine.console.map(|channel| agent::listener(channel.socket)).transpose()?;
    let guest = Rc::new(Guest::new(hypervisor.clone(), console.clone(), faults));
    let quiet = std::future::pending::<()>;
    tokio::select! {
        () = async { match monitor { Some(listener) => qmp::serve(listener, hypervisor.clone()).await, None => quiet().await } } => {}
        () = async { match serial { Some(listener) => console.serve(listener).await, None => quiet().await } } => {}
        ended = run_guest(&machine, &hypervisor, guest) => return ended,
        _ = terminated.recv() => hypervisor.end(Cause::HostSignal),
        _ = interrupted.recv() => hypervisor.end(Cause::HostSignal),
    }
    Ok(())
}

/// Everything that the guest does is on one set of tasks, which rests while the hypervisor has stopped it.
async fn run_guest(machine: &Machine, hypervisor: &Rc<Hypervisor>, guest: Rc<Guest>) -> io::Result<()> {
    let tasks = LocalSet::new();
    let life = tasks.run_until(async {
        let agent = async {
            if guest.faults.silent {
                return std::future::pending().await;
            }
            agent::serve(&machine.ports, guest.clone()).await
        };
        let (_, ended) = tokio::join!(guest.live(), agent);
        ended
    });
    tokio::pin!(life);
    std::future::poll_fn(|cx| if hypervisor.lets_guest_run(cx) { life.as_mut().poll(cx) } else { std::task::Poll::Pending }).await
}
