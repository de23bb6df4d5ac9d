//! `BPF_PROG_TEST_RUN`, for one packet. aya has it without flags, and so without the one that holds a program to account for
//! the sum over the packet that a device makes on receipt.

#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The command's number.
const BPF_PROG_TEST_RUN: nix::libc::c_long = 10;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (6.16): the packet bears a sum over all of it, as from a device, which must be right
/// afterwards; where it is not, the run fails (`EBADMSG`).
pub(crate) const DEVICE_SUM: u32 = 1 << 2;

/// What the kernel reads and writes: `struct test` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// Runs a program on a frame, with a `struct __sk_buff` as its context; returns the verdict, and what it makes of the frame.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: &[u8],
    flags: u32,
) -> io::Result<(i32, Vec<u8>)> {
    let mut out = vec![0; 2048];
    let mut attributes = Attributes {
        prog_fd: program.as_raw_fd().unsigned_abs(),
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        ctx_size_in: context.len() as u32,
        ctx_in: context.as_ptr() as u64,
        flags,
        ..Attributes::default()
    };
    // SAFETY: `attributes` is fully initialised, without padding, and lives through the call, as does what it points to:
    // slices of the lengths beside them.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            std::ptr::from_mut(&mut attributes),
            size_of::<Attributes>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    out.truncate(attributes.data_size_out as usize);
    Ok((attributes.retval as i32, out))
}
