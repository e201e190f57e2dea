//! Makes a failing input smaller.

/// Attempts that one failing input is worth.
const MOST_TRIES: usize = 2000;

/// The input of the pieces that are kept.
type Join = dyn Fn(&[bool]) -> Vec<u8>;

/// An input in pieces that can be left out.
pub struct Pieces {
    pub count: usize,
    pub join: Box<Join>,
}

impl Pieces {
    /// Every byte for itself.
    pub fn bytes(input: &[u8]) -> Pieces {
        Pieces::of(input.iter().map(|byte| vec![*byte]).collect())
    }

    /// Parts that follow one another.
    pub fn of(parts: Vec<Vec<u8>>) -> Pieces {
        Pieces {
            count: parts.len(),
            join: Box::new(move |kept| {
                let parts = parts.iter().zip(kept).filter(|(_, kept)| **kept);
                parts.flat_map(|(part, _)| part).copied().collect()
            }),
        }
    }
}

/// The input without pieces that it does not need to fail in the same way, as `fails` decides.
pub fn shrunk(pieces: Pieces, input: &[u8], mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut kept = vec![true; pieces.count];
    let mut best = input.to_vec();
    let mut step = pieces.count;
    let mut tries = 0;
    while step > 0 {
        let mut at = 0;
        while at < pieces.count {
            let end = (at + step).min(pieces.count);
            if kept[at..end].contains(&true) {
                let before = kept[at..end].to_vec();
                kept[at..end].fill(false);
                let shorter = (pieces.join)(&kept);
                if tries < MOST_TRIES && fails(&shorter) {
                    best = shorter;
                } else {
                    kept[at..end].copy_from_slice(&before);
                }
                tries += 1;
            }
            at = end;
        }
        step /= 2;
    }
    best
}
