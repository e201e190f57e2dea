//! Where the forward pass is cut into blocks.

use super::forward::Forward;

/// The most blocks that are tried.
const MOST: u64 = 128;

/// The places of the last node of every block; the last block ends with the last node. One block alone
/// says that nothing is to be won.
///
/// A block is filled with kept values up to a limit and ends where the fewest bytes are alive in its
/// second half. Of all limits that one is taken whose blocks keep least: everything that crosses a
/// cut, and the inside of the largest block, which is there while its gradients are computed.
pub(super) fn blocks(forward: &Forward) -> Vec<usize> {
    let count = forward.nodes.len();
    let mut kept = vec![0_u64; count];
    // Changes of what is alive behind each place.
    let mut change = vec![0_i64; count + 1];
    for life in forward.lives() {
        if life.is_kept {
            kept[life.from] += life.bytes;
        }
        if life.to > life.from {
            change[life.from] += life.bytes as i64;
            change[life.to.min(count)] -= life.bytes as i64;
        }
    }
    let mut alive = Vec::with_capacity(count);
    let mut sum = 0;
    for change in &change[..count] {
        sum += change;
        alive.push(sum);
    }
    let total: u64 = kept.iter().sum();
    let plain = vec![count.saturating_sub(1)];
    let tried = (1..=MOST).map(|parts| cut(&kept, &alive, total / parts));
    let mut best = (total, plain);
    for ends in tried {
        let cost = cost(forward, &ends);
        if cost < best.0 {
            best = (cost, ends);
        }
    }
    best.1
}

fn cut(kept: &[u64], alive: &[i64], limit: u64) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut start = 0;
    while start < kept.len() {
        let mut filled = 0;
        let mut best: Option<usize> = None;
        let mut end = kept.len() - 1;
        for place in start..kept.len() {
            filled += kept[place];
            if filled > limit {
                end = best.unwrap_or(place);
                break;
            }
            if filled * 2 >= limit && best.is_none_or(|best| alive[place] <= alive[best]) {
                best = Some(place);
            }
        }
        ends.push(end);
        start = end + 1;
    }
    ends
}

/// What is kept with blocks that end at these places.
fn cost(forward: &Forward, ends: &[usize]) -> u64 {
    let mut inside = vec![0; ends.len()];
    let mut across = 0;
    for life in forward.lives() {
        let block = ends.partition_point(|end| *end < life.from);
        let crosses = ends.get(block).is_none_or(|end| life.to > *end);
        // What a later block reads is kept for its copies, too.
        match (crosses, life.is_kept) {
            (true, _) => across += life.bytes,
            (false, true) => inside[block] += life.bytes,
            (false, false) => {}
        }
    }
    across + inside.into_iter().max().unwrap_or(0)
}
