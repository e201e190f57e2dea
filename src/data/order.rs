//! In which order examples come, and which of them share a row.
//!
//! Numbers are portable and depend on the seed and the epoch alone: ChaCha8 keyed with BLAKE3 of
//! `data order`, the seed and the epoch (both little-endian u64). A number below n is the next u64
//! modulo n, drawn again where it would make small numbers more likely; a shuffle goes from the last
//! item down and swaps each with one not behind it (Fisher and Yates).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// In which order an epoch goes through the examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As the rows were read, every epoch the same.
    AsRead,
    /// Anew every epoch.
    #[default]
    Shuffled,
    /// Anew every epoch, with examples of similar length in one batch: the shuffled examples are cut
    /// into pools of this many batches, each pool is sorted by length and cut into batches, and the
    /// batches are shuffled.
    Grouped { pool: usize },
}

/// The examples of an epoch, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    examples: Vec<u32>,
    /// Where each row ends in `examples`; empty where every row is one example.
    ends: Vec<u32>,
}

impl Epoch {
    pub fn rows(&self) -> usize {
        match self.ends.is_empty() {
            true => self.examples.len(),
            false => self.ends.len(),
        }
    }

    /// The examples of a row.
    pub fn row(&self, row: usize) -> &[u32] {
        if self.ends.is_empty() {
            return &self.examples[row..=row];
        }
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.examples[start as usize..self.ends[row] as usize]
    }

    /// An epoch whose rows are single examples; `batch` rows make a batch.
    pub fn single(order: Order, lengths: &[u32], batch: usize, seed: u64, epoch: u64) -> Epoch {
        let mut rng = generator(seed, epoch);
        let mut examples: Vec<u32> = (0..lengths.len() as u32).collect();
        if order != Order::AsRead {
            shuffle(&mut examples, &mut rng);
        }
        if let Order::Grouped { pool } = order {
            group(&mut examples, lengths, batch, pool, &mut rng);
        }
        Epoch {
            examples,
            ends: Vec::new(),
        }
    }

    /// An epoch whose rows are as many examples as fit into `room` tokens.
    pub fn packed(order: Order, lengths: &[u32], room: u32, seed: u64, epoch: u64) -> Epoch {
        let mut examples: Vec<u32> = (0..lengths.len() as u32).collect();
        if order != Order::AsRead {
            shuffle(&mut examples, &mut generator(seed, epoch));
        }
        pack(&examples, lengths, room)
    }
}

fn generator(seed: u64, epoch: u64) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"data order");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&epoch.to_le_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    // The largest multiple of the bound that a u64 can hold: what is drawn above it is unfair.
    let fair = u64::MAX - u64::MAX % bound;
    loop {
        let drawn = rng.next_u64();
        if drawn < fair {
            return drawn % bound;
        }
    }
}

fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let other = below(rng, last as u64 + 1) as usize;
        items.swap(last, other);
    }
}

/// See [`Order::Grouped`]. A batch that is not full stays last, so that all others are.
fn group(examples: &mut [u32], lengths: &[u32], batch: usize, pool: usize, rng: &mut ChaCha8Rng) {
    let pool = batch.saturating_mul(pool.max(1));
    for pool in examples.chunks_mut(pool) {
        // Stable: what is equally long stays shuffled.
        pool.sort_by_key(|example| std::cmp::Reverse(lengths[*example as usize]));
    }
    let full = examples.len() / batch * batch;
    let mut batches: Vec<Vec<u32>> = examples[..full]
        .chunks(batch)
        .map(<[u32]>::to_vec)
        .collect();
    shuffle(&mut batches, rng);
    examples[..full].copy_from_slice(&batches.concat());
}

/// Rows that are filled at the same time.
const OPEN: usize = 64;

/// Puts examples into rows, in order: each into the fullest open row that has room for it. When too
/// many rows are open, the fullest is done.
fn pack(order: &[u32], lengths: &[u32], room: u32) -> Epoch {
    struct Open {
        left: u32,
        examples: Vec<u32>,
    }
    let mut epoch = Epoch {
        examples: Vec::with_capacity(order.len()),
        ends: Vec::new(),
    };
    let close = |epoch: &mut Epoch, row: Open| {
        epoch.examples.extend(row.examples);
        epoch.ends.push(epoch.examples.len() as u32);
    };
    let mut open: Vec<Open> = Vec::new();
    for example in order {
        let length = lengths[*example as usize];
        let fitting = open
            .iter()
            .enumerate()
            .filter(|(_, row)| row.left >= length);
        let fullest = fitting.min_by_key(|(_, row)| row.left).map(|(at, _)| at);
        if let Some(at) = fullest {
            open[at].left -= length;
            open[at].examples.push(*example);
            continue;
        }
        if open.len() == OPEN {
            let fullest = (0..OPEN).min_by_key(|at| open[*at].left).unwrap_or(0);
            close(&mut epoch, open.remove(fullest));
        }
        open.push(Open {
            left: room.saturating_sub(length),
            examples: vec![*example],
        });
    }
    for row in open {
        close(&mut epoch, row);
    }
    epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn orders() -> impl Strategy<Value = Order> {
        prop_oneof![
            Just(Order::AsRead),
            Just(Order::Shuffled),
            (1usize..5).prop_map(|pool| Order::Grouped { pool }),
        ]
    }

    proptest! {
        #[test]
        fn an_epoch_has_every_example_once(
            lengths in prop::collection::vec(1u32..20, 1..200),
            order in orders(), batch in 1usize..9, seed: u64, epoch in 0u64..3,
        ) {
            let single = Epoch::single(order, &lengths, batch, seed, epoch);
            let packed = Epoch::packed(order, &lengths, 20, seed, epoch);
            for epoch in [single, packed] {
                let mut seen: Vec<u32> = Vec::new();
                for row in 0..epoch.rows() {
                    let length: u32 = epoch.row(row).iter().map(|e| lengths[*e as usize]).sum();
                    prop_assert!((1..=20).contains(&length));
                    seen.extend(epoch.row(row));
                }
                seen.sort_unstable();
                prop_assert!(seen.iter().copied().eq(0..lengths.len() as u32));
            }
        }
    }

    #[test]
    fn the_order_is_the_same_on_every_machine() {
        let epoch = |seed, epoch| Epoch::single(Order::Shuffled, &[1; 8], 1, seed, epoch).examples;
        assert_eq!(epoch(0, 0), [0, 3, 6, 4, 7, 2, 1, 5]);
        assert_ne!(epoch(0, 0), epoch(0, 1));
        assert_ne!(epoch(0, 0), epoch(1, 0));
    }

    #[test]
    fn groups_have_similar_lengths_and_the_short_batch_is_last() {
        let lengths: Vec<u32> = (0..103).map(|n| n * 37 % 103).collect();
        let epoch = Epoch::single(Order::Grouped { pool: 100 }, &lengths, 4, 7, 0);
        let of = |example: &u32| lengths[*example as usize];
        for batch in epoch.examples.chunks(4) {
            let longest = batch.iter().map(of).max().unwrap();
            let shortest = batch.iter().map(of).min().unwrap();
            assert!(longest - shortest < 4, "{shortest} to {longest}");
        }
        let starts: Vec<u32> = epoch
            .examples
            .chunks(4)
            .map(|batch| of(&batch[0]))
            .collect();
        assert!(!starts.is_sorted_by(|a, b| a >= b), "batches are shuffled");
    }

    #[test]
    fn packing_leaves_little_room() {
        let lengths: Vec<u32> = (0..1000).map(|n| 5 + n * 7919 % 60).collect();
        let epoch = Epoch::packed(Order::Shuffled, &lengths, 128, 0, 0);
        let tokens: u32 = lengths.iter().sum();
        let room = epoch.rows() as f64 * 128.0;
        assert!(f64::from(tokens) / room > 0.97, "{tokens} of {room}");
    }
}
