//! The memory of operands and results. A result may lie where an operand lies.
#![allow(unsafe_code)]

use super::program::Kind;
use std::marker::PhantomData;

/// An operand: elements of one kind, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    kind: Kind,
    start: *const u8,
    elements: usize,
    _borrowed: PhantomData<&'a [u8]>,
}

/// A result: 32-bit floats.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    start: *mut f32,
    elements: usize,
    _borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: sources are only read; targets are written under the rule of `Target::store`.
unsafe impl Sync for Source<'_> {}
unsafe impl Send for Source<'_> {}
unsafe impl Sync for Target<'_> {}
unsafe impl Send for Target<'_> {}

impl<'a> Source<'a> {
    pub fn floats(elements: &'a [f32]) -> Self {
        // SAFETY: a slice is aligned and holds so many elements.
        unsafe { Self::new(Kind::F32, elements.as_ptr().cast(), elements.len()) }
    }

    pub fn truths(elements: &'a [u8]) -> Self {
        // SAFETY: as above.
        unsafe { Self::new(Kind::Bool, elements.as_ptr(), elements.len()) }
    }

    pub fn integers(elements: &'a [i64]) -> Self {
        // SAFETY: as above.
        unsafe { Self::new(Kind::I64, elements.as_ptr().cast(), elements.len()) }
    }

    /// # Safety
    /// `start` is aligned for the kind and followed by so many elements, which nobody writes while
    /// the source lives but through a target of the same run.
    pub unsafe fn new(kind: Kind, start: *const u8, elements: usize) -> Self {
        Source {
            kind,
            start,
            elements,
            _borrowed: PhantomData,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn elements(&self) -> usize {
        self.elements
    }

    fn bytes(&self) -> usize {
        match self.kind {
            Kind::F32 => 4,
            Kind::Bool => 1,
            Kind::I64 => 8,
        }
    }

    /// Whether they have memory in common.
    pub(super) fn overlaps(&self, target: &Target<'_>) -> bool {
        let (own, other) = (self.start as usize, target.start as usize);
        own < other + target.elements * 4 && other < own + self.elements * self.bytes()
    }

    /// Whether they are the same memory.
    pub(super) fn is(&self, target: &Target<'_>) -> bool {
        let is_same = self.start.addr() == target.start.addr();
        is_same && self.kind == Kind::F32 && self.elements == target.elements
    }

    /// Some elements where they lie.
    ///
    /// # Safety
    /// The source holds floats, and while the slice lives nobody writes these elements.
    #[inline(always)]
    pub(super) unsafe fn slice(&self, at: usize, count: usize) -> &'a [f32] {
        assert!(at + count <= self.elements, "plan: operands hold all rows");
        // SAFETY: within the source, and by the caller's promise nobody writes there.
        unsafe { std::slice::from_raw_parts(self.start.cast::<f32>().add(at), count) }
    }

    /// Copies elements, as floats, to `into`.
    #[inline(always)]
    pub(super) fn load(&self, at: usize, into: &mut [f32]) {
        let count = into.len();
        assert!(at + count <= self.elements, "plan: operands hold all rows");
        for (offset, element) in into.iter_mut().enumerate() {
            let at = at + offset;
            // SAFETY: within the source; writers write other elements, or behind this read.
            *element = unsafe {
                match self.kind {
                    Kind::F32 => self.start.cast::<f32>().add(at).read(),
                    Kind::Bool => f32::from(u8::from(self.start.add(at).read() != 0)),
                    Kind::I64 => index(self.start.cast::<i64>().add(at).read()),
                }
            };
        }
    }
}

/// Indices are exact; what would not be is none.
fn index(value: i64) -> f32 {
    match value.unsigned_abs() < 1 << 24 {
        true => value as f32,
        false => f32::NAN,
    }
}

impl<'a> Target<'a> {
    pub fn floats(elements: &'a mut [f32]) -> Self {
        // SAFETY: a slice is aligned, holds so many elements, and is borrowed for as long.
        unsafe { Self::new(elements.as_mut_ptr(), elements.len()) }
    }

    /// # Safety
    /// `start` is aligned and followed by so many elements, which nobody else writes, and reads
    /// only through a source of the same run, while the target lives.
    pub unsafe fn new(start: *mut f32, elements: usize) -> Self {
        Target {
            start,
            elements,
            _borrowed: PhantomData,
        }
    }

    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Whether they have memory in common.
    pub(super) fn overlaps(&self, other: &Target<'_>) -> bool {
        let (own, another) = (self.start as usize, other.start as usize);
        own < another + other.elements * 4 && another < own + self.elements * 4
    }

    /// Writes elements.
    ///
    /// # Safety
    /// Whoever writes at the same time writes other elements, and nobody holds a slice of them.
    #[inline(always)]
    pub(super) unsafe fn store(&self, at: usize, from: &[f32]) {
        assert!(
            at + from.len() <= self.elements,
            "plan: results hold all rows"
        );
        // SAFETY: within the target, and by the caller's promise nobody else is there.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.start.add(at), from.len()) };
    }

    /// The same memory as an operand.
    #[cfg(test)]
    pub(super) fn as_source(&self) -> Source<'a> {
        // SAFETY: the memory is the target's.
        unsafe { Source::new(Kind::F32, self.start.cast(), self.elements) }
    }

    #[cfg(test)]
    pub(super) fn part(&self, at: usize, elements: usize) -> Target<'a> {
        assert!(at + elements <= self.elements);
        // SAFETY: within the target.
        unsafe { Target::new(self.start.add(at), elements) }
    }

    #[cfg(test)]
    pub(super) fn to_vec(self) -> Vec<f32> {
        // SAFETY: nobody writes between runs.
        unsafe { std::slice::from_raw_parts(self.start, self.elements) }.to_vec()
    }
}
