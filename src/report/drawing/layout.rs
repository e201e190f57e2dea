//! A layered layout: every block stands below the blocks that it reads.
//!
//! Layers by longest path; a wire over several layers gets a bend in each; order in a layer by
//! barycenters of neighbours; positions as near to the neighbours' as the order and the widths
//! allow (least squares, by pooling adjacent violators). No step depends on chance.

/// How much room a block takes: to the left and right of its axis, and its height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub left: f64,
    pub right: f64,
    /// Of the block itself.
    pub height: f64,
    /// Of the labels below it.
    pub below: f64,
}

/// Where everything is. Coordinates start at 0.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The axis and the top of every block.
    pub places: Vec<(f64, f64)>,
    /// The layer of every block.
    pub layers: Vec<usize>,
    /// For every wire, the axes of its bends in the layers between its ends.
    pub bends: Vec<Vec<f64>>,
    /// Top and bottom of every layer; labels belong to it, the space for curves does not.
    pub bands: Vec<(f64, f64)>,
    pub width: f64,
    pub height: f64,
}

/// Space between neighbours in a layer.
const BESIDE: f64 = 26.0;
/// Space between layers, in which wires change their axis.
const BETWEEN: f64 = 34.0;
const SWEEPS: usize = 12;

/// A block or a bend.
struct Item {
    layer: usize,
    extent: Extent,
    above: Vec<usize>,
    beneath: Vec<usize>,
    x: f64,
}

/// Lays out blocks whose wires lead from lower to higher indices.
pub(super) fn lay_out(extents: &[Extent], wires: &[(usize, usize)]) -> Layout {
    let layers = layers(extents.len(), wires);
    let mut items: Vec<Item> = extents
        .iter()
        .zip(&layers)
        .map(|(extent, layer)| item(*layer, *extent))
        .collect();
    let bends = add_bends(&mut items, wires);
    let count = layers.iter().max().map_or(0, |last| last + 1);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, item) in items.iter().enumerate() {
        rows[item.layer].push(index);
    }
    order(&items, &mut rows);
    position(&mut items, &rows);
    finish(&items, extents.len(), layers, bends, &rows)
}

fn item(layer: usize, extent: Extent) -> Item {
    Item {
        layer,
        extent,
        above: Vec::new(),
        beneath: Vec::new(),
        x: 0.0,
    }
}

/// The longest path from above; what nothing leads to moves down to its first reader.
fn layers(count: usize, wires: &[(usize, usize)]) -> Vec<usize> {
    let mut layers = vec![0; count];
    let mut sorted = wires.to_vec();
    sorted.sort_unstable();
    for (from, to) in &sorted {
        layers[*to] = layers[*to].max(layers[*from] + 1);
    }
    for block in 0..count {
        let readers = sorted.iter().filter(|(from, _)| *from == block);
        let first = readers.map(|(_, to)| layers[*to]).min();
        if let Some(first) = first
            && !sorted.iter().any(|(_, to)| *to == block)
        {
            layers[block] = first - 1;
        }
    }
    layers
}

/// Cuts every wire into pieces of one layer; answers with the bends of each.
fn add_bends(items: &mut Vec<Item>, wires: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let thin = Extent {
        left: 4.0,
        right: 4.0,
        height: 0.0,
        below: 0.0,
    };
    let mut all = Vec::with_capacity(wires.len());
    for (from, to) in wires {
        let mut bends = Vec::new();
        let mut last = *from;
        for layer in items[*from].layer + 1..items[*to].layer {
            let bend = items.len();
            items.push(item(layer, thin));
            link(items, last, bend);
            bends.push(bend);
            last = bend;
        }
        link(items, last, *to);
        all.push(bends);
    }
    all
}

fn link(items: &mut [Item], from: usize, to: usize) {
    items[from].beneath.push(to);
    items[to].above.push(from);
}

/// Orders every row by the mean position of the neighbours above, then below, and so on.
fn order(items: &[Item], rows: &mut [Vec<usize>]) {
    let mut position = vec![0.0; items.len()];
    let number = |row: &[usize], position: &mut [f64]| {
        for (at, item) in row.iter().enumerate() {
            position[*item] = at as f64;
        }
    };
    for row in rows.iter() {
        number(row, &mut position);
    }
    for sweep in 0..SWEEPS {
        let downwards = sweep % 2 == 0;
        let mut indices: Vec<usize> = (0..rows.len()).collect();
        if !downwards {
            indices.reverse();
        }
        for index in indices {
            let row = &mut rows[index];
            let key = |item: &usize| {
                let neighbours = neighbours(&items[*item], downwards);
                mean(neighbours, &position).unwrap_or(position[*item])
            };
            row.sort_by(|a, b| key(a).total_cmp(&key(b)));
            number(row, &mut position);
        }
    }
}

fn neighbours(item: &Item, above: bool) -> &[usize] {
    if above { &item.above } else { &item.beneath }
}

fn mean(items: &[usize], position: &[f64]) -> Option<f64> {
    let sum: f64 = items.iter().map(|item| position[*item]).sum();
    (!items.is_empty()).then(|| sum / items.len() as f64)
}

/// Moves every row towards its neighbours, above and below in turn.
fn position(items: &mut [Item], rows: &[Vec<usize>]) {
    for row in rows {
        let wishes = vec![0.0; row.len()];
        place(items, row, &wishes);
    }
    for sweep in 0..SWEEPS {
        let downwards = sweep % 2 == 0;
        for step in 0..rows.len() {
            let row = &rows[if downwards {
                step
            } else {
                rows.len() - 1 - step
            }];
            let x: Vec<f64> = items.iter().map(|item| item.x).collect();
            let wishes: Vec<f64> = row
                .iter()
                .map(|item| {
                    let near = neighbours(&items[*item], downwards);
                    mean(near, &x).unwrap_or(x[*item])
                })
                .collect();
            place(items, row, &wishes);
        }
    }
}

/// The positions nearest to the wishes that keep the order and the distances.
fn place(items: &mut [Item], row: &[usize], wishes: &[f64]) {
    let mut offsets = Vec::with_capacity(row.len());
    let mut offset = 0.0;
    for (at, item) in row.iter().enumerate() {
        if at > 0 {
            let before = items[row[at - 1]].extent.right;
            offset += before + BESIDE + items[*item].extent.left;
        }
        offsets.push(offset);
    }
    // Groups of items that touch: how many, and the sum of their wishes less their offsets.
    let mut groups: Vec<(usize, f64)> = Vec::new();
    for (wish, offset) in wishes.iter().zip(&offsets) {
        groups.push((1, wish - offset));
        while let [.., (a, x), (b, y)] = groups[..]
            && x / a as f64 > y / b as f64
        {
            groups.truncate(groups.len() - 2);
            groups.push((a + b, x + y));
        }
    }
    let starts = groups
        .iter()
        .flat_map(|(count, sum)| std::iter::repeat_n(sum / *count as f64, *count));
    for ((item, start), offset) in row.iter().zip(starts).zip(offsets) {
        items[*item].x = start + offset;
    }
}

fn finish(
    items: &[Item],
    blocks: usize,
    layers: Vec<usize>,
    bends: Vec<Vec<usize>>,
    rows: &[Vec<usize>],
) -> Layout {
    let left = items.iter().map(|item| item.x - item.extent.left);
    let left = left.fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    let right = items.iter().map(|item| item.x + item.extent.right);
    let width = right.fold(left, f64::max) - left;
    let mut bands = Vec::with_capacity(rows.len());
    let mut top = 0.0;
    for row in rows {
        let tall = |item: &usize| items[*item].extent.height + items[*item].extent.below;
        let bottom = top + row.iter().map(tall).fold(0.0, f64::max);
        bands.push((top, bottom));
        top = bottom + BETWEEN;
    }
    let places = items[..blocks]
        .iter()
        .map(|item| (item.x - left, bands[item.layer].0));
    let axis = |bend: &usize| items[*bend].x - left;
    Layout {
        places: places.collect(),
        layers,
        bends: bends
            .iter()
            .map(|bends| bends.iter().map(axis).collect())
            .collect(),
        width,
        height: bands.last().map_or(0.0, |(_, bottom)| *bottom),
        bands,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(count: usize) -> Vec<Extent> {
        let one = Extent {
            left: 20.0,
            right: 30.0,
            height: 10.0,
            below: 5.0,
        };
        vec![one; count]
    }

    #[test]
    fn blocks_stand_below_what_they_read_and_never_overlap() {
        let wires = [
            (0, 1),
            (0, 2),
            (1, 3),
            (2, 4),
            (3, 5),
            (4, 5),
            (0, 5),
            (2, 3),
        ];
        let layout = lay_out(&extents(6), &wires);
        for (from, to) in wires {
            assert!(layout.layers[from] < layout.layers[to]);
        }
        for a in 0..6 {
            for b in a + 1..6 {
                let near = (layout.places[a].0 - layout.places[b].0).abs() < 50.0 + BESIDE - 1e-6;
                assert!(layout.layers[a] != layout.layers[b] || !near, "{a} and {b}");
            }
        }
        let late = lay_out(&extents(4), &[(0, 1), (1, 3), (2, 3)]);
        assert_eq!(late.layers, [0, 1, 1, 2]);
        assert_eq!(layout.bends[6].len(), layout.layers[5] - 1);
    }

    #[test]
    fn a_chain_is_straight_and_nothing_is_a_layout_too() {
        let layout = lay_out(&extents(3), &[(0, 1), (1, 2)]);
        assert!(
            layout
                .places
                .iter()
                .all(|place| place.0 == layout.places[0].0)
        );
        assert_eq!(lay_out(&[], &[]).width, 0.0);
    }
}
