//! The guest's serial console: to the log that volantd opened, and to whoever is connected.

use crate::arguments::Channel;
use crate::host;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Instant;
use tokio::net::{UnixListener, UnixStream};

#[derive(Default)]
pub struct Console {
    log: Option<File>,
    client: RefCell<Option<Rc<UnixStream>>>,
}

impl Console {
    pub fn new(channel: Option<Channel>) -> Self {
        Self { log: channel.and_then(|channel| channel.log).map(|fd| File::from(host::take(fd))), client: RefCell::default() }
    }

    /// A line as the kernel prints it, with the time since `started`.
    pub fn print(&self, started: Instant, text: &str) {
        let line = format!("[{:12.6}] {text}\r\n", started.elapsed().as_secs_f64());
        if let Some(mut log) = self.log.as_ref() {
            // A log that is full (its size is limited, and SIGXFSZ ignored) loses the line, as QEMU's does.
            let _ = log.write(line.as_bytes());
        }
        if let Some(client) = &*self.client.borrow() {
            let _ = client.try_write(line.as_bytes());
        }
    }

    /// Holds one client at a time. What it types goes nowhere.
    pub async fn serve(&self, listener: UnixListener) {
        loop {
            let Ok((client, _)) = listener.accept().await else { return };
            let client = Rc::new(client);
            *self.client.borrow_mut() = Some(client.clone());
            drain(&client).await;
            *self.client.borrow_mut() = None;
        }
    }
}

async fn drain(client: &UnixStream) {
    let mut buffer = [0u8; 256];
    while client.readable().await.is_ok() {
        match client.try_read(&mut buffer) {
            Ok(1..) => {}
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
