//! How the process begins, in the place of the standard library's beginning.

#![expect(
    unsafe_code,
    reason = "the C library's entry point, and its calls that come before everything else"
)]

use std::{
    ffi::{CStr, c_char, c_int},
    slice,
};

/// The C library's entry point.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    if !prepare() {
        return 1;
    }
    // SAFETY: C's promise to a program: so many pointers, to strings that end with a zero and stay as long as it runs.
    let arguments = unsafe { slice::from_raw_parts(arguments, usize::try_from(count).unwrap_or(0)) };
    let arguments: Vec<String> = arguments
        .iter()
        // SAFETY: as above.
        .map(|argument| unsafe { CStr::from_ptr(*argument) }.to_string_lossy().into_owned())
        .collect();
    sluice_cni::run(arguments.get(1..).unwrap_or_default()).into()
}

/// Standard input and output are something, or the first files that are opened would be taken for them: a record, and
/// the result written into it. And whoever reads no more of what we write is an error of that write, not our end.
fn prepare() -> bool {
    for descriptor in 0..3 {
        // SAFETY: neither call takes memory but a string that ends with a zero. The lowest free number is `descriptor`,
        // as those below it are taken.
        let open = unsafe {
            libc::fcntl(descriptor, libc::F_GETFD) != -1
                || libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) == descriptor
        };
        if !open {
            return false;
        }
    }
    // SAFETY: no handler of ours is entered.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) != libc::SIG_ERR }
}
