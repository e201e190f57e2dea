//! ONNX Runtime's arena on paper: where it puts what it allocates, and which bytes it touches.
//!
//! Regions double in size. A request takes the smallest free piece that holds it, all of it unless that
//! is twice as large; pieces that are freed join their free neighbours, but never over the border of a
//! region. What has been touched stays with the process.

use std::collections::BTreeMap;

const LEAST: u64 = 256;
/// The size of the first region.
const FIRST: u64 = 1 << 20;
/// More than this of a piece is never left unused.
const MOST_UNUSED: u64 = 128 << 20;

/// A place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    region: usize,
    start: u64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    size: u64,
    is_free: bool,
}

#[derive(Debug, Default)]
struct Region {
    pieces: BTreeMap<u64, Piece>,
    /// Up to here: what is free is used from the front.
    touched: u64,
}

#[derive(Debug)]
pub(super) struct Arena {
    regions: Vec<Region>,
    next: u64,
}

impl Arena {
    pub fn new() -> Arena {
        Arena {
            regions: Vec::new(),
            next: FIRST,
        }
    }

    /// Bytes that have been touched.
    pub fn touched(&self) -> u64 {
        let touched = self.regions.iter().map(|region| region.touched);
        touched.fold(0, u64::saturating_add)
    }

    pub fn take(&mut self, bytes: u64) -> Place {
        // Sizes that no machine has stay numbers.
        let size = bytes.clamp(1, 1 << 60).next_multiple_of(LEAST);
        let place = self.smallest(size).unwrap_or_else(|| self.extend(size));
        let region = &mut self.regions[place.region];
        let found = region.pieces[&place.start].size;
        let splits = found / 2 >= size || found - size >= MOST_UNUSED;
        let taken = Piece {
            size: if splits { size } else { found },
            is_free: false,
        };
        region.pieces.insert(place.start, taken);
        if splits && found > size {
            let rest = Piece {
                size: found - size,
                is_free: true,
            };
            region.pieces.insert(place.start + size, rest);
        }
        region.touched = region.touched.max(place.start.saturating_add(bytes));
        place
    }

    pub fn give_back(&mut self, place: Place) {
        let pieces = &mut self.regions[place.region].pieces;
        let Some(mut size) = pieces.get(&place.start).map(|piece| piece.size) else {
            return;
        };
        let mut start = place.start;
        let behind = pieces.get(&(start + size)).copied();
        if let Some(behind) = behind.filter(|piece| piece.is_free) {
            pieces.remove(&(start + size));
            size += behind.size;
        }
        let before = pieces.range(..start).next_back();
        let before = before.map(|(at, piece)| (*at, *piece));
        if let Some((at, before)) = before.filter(|(_, piece)| piece.is_free) {
            pieces.remove(&start);
            start = at;
            size += before.size;
        }
        let is_free = true;
        pieces.insert(start, Piece { size, is_free });
    }

    /// The smallest free piece that holds so much.
    fn smallest(&self, size: u64) -> Option<Place> {
        let regions = self.regions.iter().enumerate();
        let pieces = regions.flat_map(|(region, of)| {
            let pieces = of.pieces.iter();
            pieces.map(move |(start, piece)| {
                (
                    *piece,
                    Place {
                        region,
                        start: *start,
                    },
                )
            })
        });
        let fitting = pieces.filter(|(piece, _)| piece.is_free && piece.size >= size);
        let smallest = fitting.min_by_key(|(piece, place)| (piece.size, *place));
        smallest.map(|(_, place)| place)
    }

    fn extend(&mut self, size: u64) -> Place {
        let mut has_grown = false;
        while size > self.next {
            self.next = self.next.saturating_mul(2);
            has_grown = true;
        }
        let mut region = Region::default();
        let whole = Piece {
            size: self.next,
            is_free: true,
        };
        region.pieces.insert(0, whole);
        self.regions.push(region);
        if !has_grown {
            self.next = self.next.saturating_mul(2);
        }
        Place {
            region: self.regions.len() - 1,
            start: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arena;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_free_is_used_again() {
        let mut arena = Arena::new();
        let first = arena.take(3 * MIB);
        arena.give_back(first);
        assert_eq!(arena.take(3 * MIB), first);
        assert_eq!(arena.touched(), 3 * MIB);
    }

    #[test]
    fn neighbours_join_but_regions_do_not() {
        let mut arena = Arena::new();
        // A region of four, and one of eight behind it.
        let places: Vec<_> = (0..4).map(|_| arena.take(MIB)).collect();
        let other = arena.take(4 * MIB);
        for place in places {
            arena.give_back(place);
        }
        arena.give_back(other);
        let touched = arena.touched();
        arena.take(8 * MIB);
        assert!(arena.touched() >= touched + 4 * MIB, "{}", arena.touched());
    }

    #[test]
    fn a_piece_that_is_nearly_full_is_taken_whole() {
        let mut arena = Arena::new();
        let place = arena.take(4 * MIB);
        arena.give_back(place);
        arena.take(3 * MIB);
        let behind = arena.take(MIB / 2);
        assert_ne!(behind.region, place.region);
    }
}
