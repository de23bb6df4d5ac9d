//! The one place where an answer becomes an action, and a drop is counted.

use sluice_ebpf_common::DropReason;

use crate::maps;

/// The action that a stage decided on, or why the packet goes no further.
pub type Verdict = Result<i32, DropReason>;

/// `TCX_NEXT`: the datapath has no opinion; the next program, then the kernel, go on. The older clsact hook
/// reads the same number as `TC_ACT_UNSPEC`.
pub const PASS: i32 = -1;
/// `TCX_DROP`.
const DROP: i32 = 2;

/// Turns a verdict into the program's return value.
#[inline(always)]
pub fn give(verdict: Verdict) -> i32 {
    verdict.unwrap_or_else(|reason| {
        maps::count_drop(reason);
        DROP
    })
}
