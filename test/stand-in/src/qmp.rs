//! QEMU's machine protocol (docs/interop/qmp-spec): one client at a time, as QEMU does; the next waits in the socket.

use crate::hypervisor::{Cause, Hypervisor};
use serde_json::{Value, json};
use std::io;
use std::rc::Rc;
use tokio::net::{UnixListener, UnixStream};

/// The version that `--version` and the greeting tell.
pub const VERSION: (u32, u32, u32) = (7, 2, 0);
/// Commands of volantd's are a few dozen bytes.
const LONGEST_COMMAND: usize = 64 * 1024;

pub async fn serve(listener: UnixListener, hypervisor: Rc<Hypervisor>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        // A client that hangs up, or stops reading, is the end of its connection and of nothing else.
        let _ = talk(&Rc::new(client), &hypervisor).await;
        hypervisor.tell(None);
    }
}

async fn talk(client: &Rc<UnixStream>, hypervisor: &Rc<Hypervisor>) -> io::Result<()> {
    let (major, minor, micro) = VERSION;
    let version = json!({ "qemu": { "major": major, "minor": minor, "micro": micro }, "package": "stand-in" });
    say(client, &json!({ "QMP": { "version": version, "capabilities": ["oob"] } }))?;
    let mut negotiated = false;
    let mut held = Vec::new();
    loop {
        client.readable().await?;
        let mut buffer = [0u8; 1024];
        match client.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => held.extend_from_slice(&buffer[..count]),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => continue,
            Err(cause) => return Err(cause),
        }
        while let Some(end) = held.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            if line.trim_ascii().is_empty() {
                continue;
            }
            obey(&line, client, hypervisor, &mut negotiated)?;
        }
        if held.len() > LONGEST_COMMAND {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn obey(line: &[u8], client: &Rc<UnixStream>, hypervisor: &Rc<Hypervisor>, negotiated: &mut bool) -> io::Result<()> {
    let command: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
    let id = command.get("id").cloned();
    let answer = |mut message: Value| {
        if let Some(id) = &id {
            message["id"] = id.clone();
        }
        say(client, &message)
    };
    let refuse = |class: &str, text: String| answer(json!({ "error": { "class": class, "desc": text } }));
    let Some(name) = command["execute"].as_str() else {
        return refuse("GenericError", "QMP input lacks member 'execute'".to_owned());
    };
    if *negotiated == (name == "qmp_capabilities") {
        return refuse("CommandNotFound", format!("{name} is not possible before, or after, capabilities negotiation"));
    }
    let value = match name {
        "qmp_capabilities" => {
            *negotiated = true;
            hypervisor.tell(Some(client.clone()));
            json!({})
        }
        "query-status" => json!({ "running": hypervisor.is_running(), "singlestep": false, "status": hypervisor.status() }),
        "query-version" => json!({ "qemu": { "major": VERSION.0, "minor": VERSION.1, "micro": VERSION.2 }, "package": "stand-in" }),
        "system_powerdown" | "stop" | "cont" | "quit" => json!({}),
        _ => return refuse("CommandNotFound", format!("The command {name} has not been found")),
    };
    match name {
        "system_powerdown" => hypervisor.press_power_button(),
        "stop" => hypervisor.stop(),
        "cont" => hypervisor.resume(),
        _ => {}
    }
    answer(json!({ "return": value }))?;
    if name == "quit" { hypervisor.end(Cause::HostQuit) } else { Ok(()) }
}

fn say(client: &UnixStream, message: &Value) -> io::Result<()> {
    let line = format!("{message}\r\n");
    if client.try_write(line.as_bytes())? == line.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}
