//! Projections that are several modules in one product, and where one member ends.

use super::call::{Call, Here, Part};
use super::level::Levels;
use super::names::{Answer, Dialect, Member};
use super::site::{Layout, Obstacle, SiteKind};
use crate::graph::ValueId;
use std::ops::Range;

const QKV: &[&str] = &["q_proj", "k_proj", "v_proj"];
const GATE_UP: &[&str] = &["gate_proj", "up_proj"];

/// Lists the members of fused projections. A torch module that is itself called `qkv_proj` is one
/// module; only a tool that fuses several leaves their members to be told apart.
pub(super) fn list_members(
    levels: &Levels<'_>,
    calls: &[Call<'_>],
    dialect: Dialect,
    answers: &mut [Answer],
) {
    for (call, answer) in calls.iter().zip(answers) {
        if call.kind != SiteKind::Linear {
            continue;
        }
        let (parent, segment) = match answer.path.rsplit_once('.') {
            Some((parent, segment)) => (format!("{parent}."), segment),
            None => (String::new(), &*answer.path),
        };
        let names = members(segment).filter(|_| dialect != Dialect::Torch);
        let fused_away = call.obstacle == Some(Obstacle::FusedAttention);
        let split;
        let parts = match names {
            Some(names) if call.parts.is_empty() => {
                let here = Here::new(levels, call.level, call.node);
                split = split_members(here, call.output, call.out_features, names);
                &split
            }
            None if !answer.path.is_empty() && !fused_away => continue,
            _ => &call.parts,
        };
        let members = parts.iter().map(|part| Member {
            path: names.map_or_else(String::new, |_| format!("{parent}{}", part.name)),
            slice: Some(part.slice.clone()),
        });
        answer.members = members.collect();
        if fused_away && names.is_none() {
            answer.because = "the projections are fused into one attention node".to_owned();
        }
    }
}

/// The members of the projections that ONNX Runtime's model builder fuses, by the name it gives
/// them.
fn members(segment: &str) -> Option<&'static [&'static str]> {
    match segment {
        "qkv_proj" => Some(QKV),
        "gate_up_proj" => Some(GATE_UP),
        _ => None,
    }
}

/// The members of a product that an attention node reads packed as query, key and value.
pub(super) fn packed_attention(here: Here<'_, '_>, output: ValueId, width: i64) -> Vec<Part> {
    // A fused projection has few readers; a widely read value is none.
    if here.graph.use_count(output) > 4 {
        return Vec::new();
    }
    let attention = here
        .graph
        .uses(output)
        .into_iter()
        .find_map(|(node, slot)| {
            let user = here.at(node);
            let packed = slot == Some(0) && user.operand(1).is_none() && user.operand(2).is_none();
            (user.is("GroupQueryAttention") && packed).then_some(user)
        });
    let sizes = attention.and_then(|attention| {
        let heads = attention.int("num_heads", 0);
        let shared = attention.int("kv_num_heads", heads);
        let total = heads.checked_add(shared.checked_mul(2)?)?;
        if heads <= 0 || shared <= 0 || width % total != 0 {
            return None;
        }
        let size = width / total;
        Some(vec![heads * size, shared * size, shared * size])
    });
    sizes.map_or_else(Vec::new, |sizes| parts(QKV, &sizes, width))
}

/// The members of a product with this name, from the Split or the Slices that read it.
fn split_members(
    here: Here<'_, '_>,
    output: ValueId,
    width: i64,
    names: &'static [&'static str],
) -> Vec<Part> {
    if here.graph.use_count(output) > 2 * names.len() {
        return Vec::new();
    }
    let users: Vec<Here<'_, '_>> = here
        .graph
        .uses(output)
        .into_iter()
        .filter(|(_, slot)| *slot == Some(0))
        .map(|(node, _)| here.at(node))
        .collect();
    let split = users.iter().find(|user| user.is("Split"));
    if let Some(sizes) = split.and_then(|split| split_sizes(*split, width, names.len())) {
        return parts(names, &sizes, width);
    }
    let mut slices: Vec<Range<i64>> = users
        .iter()
        .filter_map(|user| slice(*user, width))
        .collect();
    slices.sort_by_key(|slice| slice.start);
    slices.dedup();
    let sizes: Vec<i64> = slices.iter().map(|slice| slice.end - slice.start).collect();
    parts(names, &sizes, width)
}

/// Names and sizes as ranges, if they cover the width exactly.
fn parts(names: &'static [&'static str], sizes: &[i64], width: i64) -> Vec<Part> {
    if names.len() != sizes.len() || sizes.iter().sum::<i64>() != width {
        return Vec::new();
    }
    let mut start = 0;
    names
        .iter()
        .zip(sizes)
        .map(|(name, size)| {
            let slice = start..start + size;
            start = slice.end;
            Part { name, slice }
        })
        .collect()
}

/// The sizes of a Split along the last axis. An axis that counts from the front is taken for the
/// last one if the sizes add up, which the caller checks.
fn split_sizes(split: Here<'_, '_>, width: i64, members: usize) -> Option<Vec<i64>> {
    if split.int("axis", 0) == 0 {
        return None;
    }
    let stated = match split.operand(1) {
        Some(sizes) => Some(split.levels.integers(split.value(sizes))?),
        None => split.node.ints("split").map(<[i64]>::to_vec),
    };
    let equal = || {
        let count = members as i64;
        (split.node.int("num_outputs") == Some(count) && width % count == 0)
            .then(|| vec![width / count; members])
    };
    let sizes = stated.or_else(equal)?;
    (sizes.iter().all(|size| (1..=width).contains(size))).then_some(sizes)
}

/// The range of a Slice along one axis that is not the first.
fn slice(user: Here<'_, '_>, width: i64) -> Option<Range<i64>> {
    if !user.is("Slice") {
        return None;
    }
    let number = |slot: usize| -> Option<i64> {
        match user.levels.integers(user.value(user.operand(slot)?))?[..] {
            [value] => Some(value),
            _ => None,
        }
    };
    let along_last = number(3).is_some_and(|axis| axis != 0);
    if !along_last || user.operand(4).is_some() && number(4) != Some(1) {
        return None;
    }
    let within = |bound: i64| {
        if bound < 0 {
            bound.saturating_add(width)
        } else {
            bound.min(width)
        }
    };
    let range = within(number(1)?)..within(number(2)?);
    (0 <= range.start && range.start < range.end).then_some(range)
}

/// `com.microsoft:Attention`: query, key and value projections in one node with the attention.
pub(super) fn attention<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let weight = here.constant(1)?;
    let (in_features, out_features) = weight.matrix()?;
    let sizes = match here.node.ints("qkv_hidden_sizes") {
        Some(sizes) => sizes.to_vec(),
        None => vec![out_features / 3; 3],
    };
    let in_range = sizes.iter().all(|size| (1..=out_features).contains(size));
    let parts = if in_range {
        parts(QKV, &sizes, out_features)
    } else {
        Vec::new()
    };
    Some(Call {
        level: here.level,
        node: here.id,
        kind: SiteKind::Linear,
        input: here.computed(0)?,
        output: here.result()?,
        weight,
        layout: Layout::InOut,
        bias: here.constant(2),
        in_features,
        out_features,
        parts,
        obstacle: Some(Obstacle::FusedAttention),
        nearby: Vec::new(),
    })
}
