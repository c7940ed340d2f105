//! The program's allocator: an arena with lists of freed pieces.
//!
//! What lives as long as we do asks for a few hundred small pieces and gives most of them back. The C
//! library returns their pages to the kernel each time, which was a twentieth of what a container costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

const SIZE: usize = 384 * 1024;
/// Pieces are of 16 bytes and its doubles.
const SMALLEST: usize = 16;
const CLASSES: usize = 12;

#[repr(C, align(4096))]
struct Space([u8; SIZE]);

pub(crate) struct Memory {
    space: UnsafeCell<Space>,
    state: UnsafeCell<State>,
}

struct State {
    /// How much of the space has ever been handed out.
    used: usize,
    /// The freed pieces of a class; each holds the next one's address.
    free: [*mut u8; CLASSES],
}

// SAFETY: the program has one thread, which `clone` makes sure of, and its signal handler allocates
// nothing.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            space: UnsafeCell::new(Space([0; SIZE])),
            state: UnsafeCell::new(State { used: 0, free: [ptr::null_mut(); CLASSES] }),
        }
    }

    fn start(&self) -> *mut u8 {
        self.space.get().cast()
    }

    fn is_ours(&self, piece: *mut u8) -> bool {
        (piece.addr()).wrapping_sub(self.start().addr()) < SIZE
    }
}

/// `None` where the C library is to serve.
fn class(layout: Layout) -> Option<usize> {
    if layout.align() > SMALLEST {
        return None;
    }
    let doubles = layout.size().div_ceil(SMALLEST).checked_next_power_of_two()?.trailing_zeros();
    usize::try_from(doubles).ok().filter(|class| *class < CLASSES)
}

// SAFETY: a piece is handed out once until it comes back: it is cut from the unused part, or taken off
// the list of its class, which only `dealloc` puts it on. Pieces are multiples of 16 bytes from a start
// that is aligned, so aligned to 16. Which of the two allocators a pointer is from tells its address.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no call from within this one.
        let state = unsafe { &mut *self.state.get() };
        if let Some(class) = class(layout) {
            let first = state.free[class];
            if !first.is_null() {
                // SAFETY: a piece on the list is free, and holds what `dealloc` has written.
                state.free[class] = unsafe { first.cast::<*mut u8>().read() };
                return first;
            }
            let length = SMALLEST << class;
            if length <= SIZE - state.used {
                // SAFETY: within the space.
                let piece = unsafe { self.start().add(state.used) };
                state.used += length;
                return piece;
            }
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match class(layout) {
            Some(class) if self.is_ours(piece) => {
                // SAFETY: one thread, and no call from within this one.
                let state = unsafe { &mut *self.state.get() };
                // SAFETY: the caller gives up the piece, which has room for an address and is aligned.
                unsafe { piece.cast::<*mut u8>().write(state.free[class]) };
                state.free[class] = piece;
            }
            // SAFETY: not from the space, so from there.
            _ => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract: with this alignment the size does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !self.is_ours(piece) {
            // SAFETY: not from the space, so from there.
            return unsafe { System.realloc(piece, layout, size) };
        }
        if class(layout) == class(wanted) {
            return piece;
        }
        // SAFETY: as the caller's contract has it.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: two pieces that are in use do not overlap, and both have the smaller length.
            unsafe { ptr::copy_nonoverlapping(piece, moved, layout.size().min(size)) };
            // SAFETY: the caller gives it up.
            unsafe { self.dealloc(piece, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn a_freed_piece_serves_again_and_a_grown_one_keeps_its_bytes() {
        let memory = Box::new(Memory::new());
        // SAFETY: each piece is used within its size and given back once.
        unsafe {
            let first = memory.alloc(layout(20));
            assert!(memory.is_ours(first) && first.addr().is_multiple_of(16));
            first.write_bytes(7, 20);
            assert_eq!(memory.realloc(first, layout(20), 32), first);
            let grown = memory.realloc(first, layout(32), 33);
            assert_ne!(grown, first);
            assert_eq!(std::slice::from_raw_parts(grown, 20), [7; 20]);
            assert_eq!(memory.alloc(layout(17)), first);
            memory.dealloc(first, layout(17));
            memory.dealloc(grown, layout(33));
        }
    }

    #[test]
    fn what_is_large_or_has_no_room_comes_from_elsewhere() {
        let memory = Box::new(Memory::new());
        let large = layout(SMALLEST << (CLASSES - 1));
        // SAFETY: each piece is given back once, with its layout.
        unsafe {
            let pieces: Vec<*mut u8> =
                (0..=SIZE / large.size()).map(|_| memory.alloc(large)).collect();
            let (last, ours) = pieces.split_last().unwrap();
            assert!(ours.iter().all(|piece| memory.is_ours(*piece)));
            assert!(!last.is_null() && !memory.is_ours(*last));
            for piece in pieces {
                memory.dealloc(piece, large);
            }
            let larger = layout(large.size() + 1);
            let piece = memory.alloc(larger);
            assert!(!memory.is_ours(piece));
            memory.dealloc(piece, larger);
        }
    }
}
