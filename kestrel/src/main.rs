// The standard library's own start-up opens /dev/null for closed descriptors and aborts where there is none, which is how an
// empty initramfs looks to its first process.
#![cfg_attr(not(test), no_main)]

/// The C library's entry.
#[cfg(not(test))]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    kestrel::init::main()
}
