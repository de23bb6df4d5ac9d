//! Memory for a process that is over after a millisecond: handed out from one piece, one after the other, and given
//! back only where it was the last. Asking the kernel for pages and giving them back, as an allocator for longer
//! lives does, took a tenth of an ADD.
//!
//! ```text
//! memory  [ handed out, in order .............. | free ................... ]
//!                                               ^ used          ^ fresh: beyond it nobody has written, all is zero
//! ```
//!
//! Beyond the piece, the system's allocator goes on: a GC over many attachments, say.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes of the piece. An ADD takes a quarter of it; what is not written to is no memory yet.
const SIZE: usize = 512 * 1024;
/// What the piece begins at a multiple of, which makes offsets in it as good as addresses for alignments up to that.
const ALIGN: usize = 64;

#[repr(C, align(64))]
struct Piece(UnsafeCell<[u8; SIZE]>);

/// The allocator.
pub(crate) struct Heap {
    piece: Piece,
    /// Offset of what has not been handed out, or has been given back.
    used: AtomicUsize,
    /// Offset from which on nothing was ever handed out.
    fresh: AtomicUsize,
}

// SAFETY: the piece is only ever reached through pointers to ranges of it, each of which `take` hands to one caller at
// a time: ranges begin where `used` was and end where a compare-and-exchange moved it to.
unsafe impl Sync for Heap {}

impl Heap {
    /// One of which nothing is handed out.
    pub(crate) const fn new() -> Self {
        let piece = Piece(UnsafeCell::new([0; SIZE]));
        Self { piece, used: AtomicUsize::new(0), fresh: AtomicUsize::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.piece.0.get().cast()
    }

    /// Where in the piece a pointer is, if it is in it.
    fn offset(&self, pointer: *const u8) -> Option<usize> {
        pointer.addr().checked_sub(self.base().addr()).filter(|offset| *offset < SIZE)
    }

    /// A range of the piece, if there is room, and whether nobody has had it before.
    fn take(&self, layout: Layout) -> Option<(*mut u8, bool)> {
        if layout.align() > ALIGN {
            return None;
        }
        let mut used = self.used.load(Relaxed);
        loop {
            let start = used.checked_next_multiple_of(layout.align())?;
            let end = start.checked_add(layout.size()).filter(|end| *end <= SIZE)?;
            match self.used.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                Ok(_) => {
                    let fresh = self.fresh.fetch_max(end, Relaxed) <= start;
                    // SAFETY: `start` is within the piece.
                    return Some((unsafe { self.base().add(start) }, fresh));
                }
                Err(now) => used = now,
            }
        }
    }

    /// Moves the end of the last range that was handed out. Says whether it was this one, and there was room.
    fn resize(&self, offset: usize, from: usize, to: usize) -> bool {
        let (Some(end), Some(wanted)) = (offset.checked_add(from), offset.checked_add(to)) else {
            return false;
        };
        if wanted > SIZE || self.used.compare_exchange(end, wanted, Relaxed, Relaxed).is_err() {
            return false;
        }
        self.fresh.fetch_max(wanted, Relaxed);
        true
    }
}

// SAFETY: what `take` hands out is within the piece, of the layout's size and alignment, and nobody else's until it is
// given back; everything else is the system's. Which of the two a pointer is from, its address tells.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some((pointer, _)) => pointer,
            // SAFETY: the caller's promises are the system's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some((pointer, true)) => pointer,
            Some((pointer, false)) => {
                // SAFETY: so many bytes were just handed out.
                unsafe { pointer.write_bytes(0, layout.size()) };
                pointer
            }
            // SAFETY: the caller's promises are the system's.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            // Where it is not the last it stays: the process is over soon.
            Some(offset) => drop(self.resize(offset, layout.size(), 0)),
            // SAFETY: it is the system's, and the caller's promises are too.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: it is the system's, and the caller's promises are too.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        if self.resize(offset, layout.size(), size) || size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no overflow.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: the old range is live and of this size, the new one larger, and they are two.
            unsafe { moved.copy_from_nonoverlapping(pointer, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn ranges_do_not_overlap_and_the_last_grows_shrinks_and_goes_in_place() {
        static HEAP: Heap = Heap::new();
        let heap = &HEAP;
        // SAFETY: each pointer is used within its size, and not after it was given back.
        unsafe {
            let first = heap.alloc(layout(3, 1));
            let second = heap.alloc(layout(8, 8));
            assert_eq!((second.addr() - heap.base().addr(), second.addr() % 8), (8, 0));
            second.write_bytes(7, 8);
            assert_eq!(heap.realloc(second, layout(8, 8), 100), second);
            let third = heap.alloc(layout(1, 1));
            let moved = heap.realloc(second, layout(100, 8), 200);
            assert!(moved != second && third.addr() < moved.addr());
            assert_eq!(*moved.add(7), 7, "what was written went along");
            heap.dealloc(moved, layout(200, 8));
            let again = heap.alloc_zeroed(layout(200, 8));
            assert_eq!(again, moved, "the last can be given again");
            assert!((0..200).all(|at| *again.add(at) == 0), "and is zero where that is asked for");
            heap.dealloc(first, layout(3, 1));
            assert_ne!(heap.alloc(layout(3, 1)), first, "what is not the last stays");
        }
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        static HEAP: Heap = Heap::new();
        let heap = &HEAP;
        // SAFETY: each pointer is used within its size, and given back once.
        unsafe {
            for layout in [layout(SIZE + 1, 1), layout(8, 4096)] {
                let pointer = heap.alloc_zeroed(layout);
                assert_eq!(heap.offset(pointer), None);
                let larger = heap.realloc(pointer, layout, layout.size() + 1);
                let size = layout.size() + 1;
                heap.dealloc(larger, Layout::from_size_align(size, layout.align()).unwrap());
            }
            assert!(heap.offset(heap.alloc(layout(SIZE, 1))).is_some());
            assert_eq!(heap.offset(heap.alloc(layout(1, 1))), None, "it is full");
        }
    }
}
