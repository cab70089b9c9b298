//! Sends frames as they are given, from inside a guest: `forger <link>` reads lines of hexadecimal digits, each a virtio-net header of
//! ten bytes and a frame, and puts them on the link through a packet socket (packet(7), PACKET_VNET_HDR). Says how many it has sent.
use std::ffi::CString;
use std::io::{BufRead, Error};

const AF_PACKET: i32 = 17;
const SOCK_RAW: i32 = 3;
const SOL_PACKET: i32 = 263;
const PACKET_VNET_HDR: i32 = 15;

/// struct sockaddr_ll.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: i32,
    hardware: u16,
    kind: u8,
    length: u8,
    address: [u8; 8],
}

unsafe extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn setsockopt(fd: i32, level: i32, option: i32, value: *const i32, length: u32) -> i32;
    fn sendto(fd: i32, bytes: *const u8, length: usize, flags: i32, to: *const LinkAddress, size: u32) -> isize;
    fn if_nametoindex(name: *const i8) -> u32;
}

fn bytes(line: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("hexadecimal digits");
    (0..line.len() / 2).map(|index| digit(index * 2)).collect()
}

fn main() {
    let name = std::env::args().nth(1).expect("usage: forger <link>");
    let name = CString::new(name).expect("a link's name");
    // SAFETY: the pointers are to live values of the sizes that are given beside them.
    let (fd, index) = unsafe { (socket(AF_PACKET, SOCK_RAW, 0), if_nametoindex(name.as_ptr())) };
    let on = 1i32;
    // SAFETY: as above.
    let set = unsafe { setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &raw const on, 4) };
    assert!(fd >= 0 && index > 0 && set == 0, "{}", Error::last_os_error());
    let to = LinkAddress {
        family: 17,
        protocol: 0x0300,
        index: index as i32,
        hardware: 0,
        kind: 0,
        length: 6,
        address: [0; 8],
    };
    let mut sent = 0;
    for line in std::io::stdin().lock().lines() {
        let frame = bytes(line.expect("text").trim());
        // SAFETY: as above.
        let result = unsafe { sendto(fd, frame.as_ptr(), frame.len(), 0, &raw const to, size_of::<LinkAddress>() as u32) };
        assert!(result == frame.len() as isize, "frame {sent}: {}", Error::last_os_error());
        sent += 1;
    }
    println!("{sent}");
}
