//! Items of a graph: doubled, dropped, moved, renamed.

use super::{any_name, metadata, name_in, tensor};
use crate::random::Random;
use onnx_protobuf::{GraphProto, ValueInfoProto};

pub fn change(graph: &mut GraphProto, random: &mut Random) {
    match random.below(12) {
        0 => shuffle(&mut graph.node, random),
        1 => shuffle(&mut graph.initializer, random),
        2 => shuffle(&mut graph.input, random),
        3 => shuffle(&mut graph.output, random),
        4 => shuffle(&mut graph.value_info, random),
        5 => {
            let name = name_in(graph, random);
            rename(&mut graph.input, name, random);
        }
        6 => {
            let name = name_in(graph, random);
            rename(&mut graph.output, name, random);
        }
        7 => {
            let name = name_in(graph, random);
            if let Some(tensor) = some(&mut graph.initializer, random) {
                tensor.name = name;
            }
        }
        8 => {
            let values = match random.below(3) {
                0 => &mut graph.input,
                1 => &mut graph.output,
                _ => &mut graph.value_info,
            };
            if let Some(value) = some(values, random) {
                tensor::change_type(value.type_.mut_or_insert_default(), random);
            }
        }
        9 => {
            // A type for any value, fitting or not.
            let mut value = ValueInfoProto {
                name: name_in(graph, random),
                ..Default::default()
            };
            tensor::change_type(value.type_.mut_or_insert_default(), random);
            graph.value_info.push(value);
        }
        10 => {
            let name = name_in(graph, random);
            let initializer = tensor::declared(name, random);
            graph.initializer.push(initializer);
        }
        _ => match random.once_in(2) {
            true => graph.metadata_props.push(metadata(random)),
            false => graph.name = any_name(random),
        },
    }
}

pub fn some<'i, T>(items: &'i mut [T], random: &mut Random) -> Option<&'i mut T> {
    let at = random.below(items.len());
    items.get_mut(at)
}

/// Doubles, drops or moves an item.
fn shuffle<T: Clone>(items: &mut Vec<T>, random: &mut Random) {
    if items.is_empty() {
        return;
    }
    let (at, to) = (random.below(items.len()), random.below(items.len()));
    match random.below(4) {
        0 => items.insert(to, items[at].clone()),
        1 => drop(items.remove(at)),
        2 => items.swap(at, to),
        _ => items.truncate(at),
    }
}

fn rename(values: &mut [ValueInfoProto], name: String, random: &mut Random) {
    if let Some(value) = some(values, random) {
        value.name = name;
    }
}
