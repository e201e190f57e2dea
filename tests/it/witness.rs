//! An independent reader (`onnx-protobuf`) over the compiled output of every fixture: it finds the
//! base's nodes and weights, in their order and unchanged, and the adapter's tensors among them.

use crate::checker::{adapted, models};
use onnx_protobuf::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use peftc::diag::Sink;
use peftc::weights::{NamedTensor, read_tensors};
use protobuf::Message;
use std::path::Path;

fn read(path: &Path) -> ModelProto {
    ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

/// What is left of a value's name when its uses have moved to a replacement.
fn public(name: &str) -> &str {
    name.strip_suffix(".base").unwrap_or(name)
}

/// The node without its bodies and the renaming of what it computes and reads.
fn plain(node: &NodeProto) -> NodeProto {
    let mut node = node.clone();
    for name in node.output.iter_mut().chain(&mut node.input) {
        *name = public(name).to_owned();
    }
    node.attribute.iter_mut().for_each(|a| a.g = None.into());
    node
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    let body = |attribute: &'_ AttributeProto| attribute.g.is_some();
    let with_body = node.attribute.iter().filter(move |a| body(a));
    with_body.map(|attribute| attribute.g.as_ref().unwrap())
}

/// The base is a subsequence of the adapted graph, in its bodies too. Returns the nodes that are new.
fn check_graph(name: &str, base: &GraphProto, adapted: &GraphProto) -> usize {
    let mut rest = adapted.node.iter();
    let mut new = adapted.node.len() - base.node.len();
    for node in &base.node {
        let found = rest.find(|other| plain(other) == plain(node));
        let found = found.unwrap_or_else(|| panic!("{name}: `{}` is changed or gone", node.name));
        for (body, other) in bodies(node).zip(bodies(found)) {
            new += check_graph(name, body, other);
        }
    }
    let kept = |tensor: &TensorProto| adapted.initializer.contains(tensor);
    assert!(base.initializer.iter().all(kept), "{name}: initializers");
    assert_eq!(base.input, adapted.input, "{name}");
    assert_eq!(base.output, adapted.output, "{name}");
    new
}

/// The adapter's file holds what the model holds.
fn check_tensor(name: &str, model: &ModelProto, tensor: &NamedTensor) {
    let mut all = model.graph.initializer.iter();
    let found = all.find(|found| found.name == tensor.name);
    let found = found.unwrap_or_else(|| panic!("{name}: no `{}`", tensor.name));
    assert_eq!(found.dims, tensor.dims, "{name}: `{}`", tensor.name);
    assert_eq!(
        found.data_type,
        tensor.dtype.number(),
        "{name}: `{}`",
        tensor.name
    );
    if found.external_data.is_empty() {
        assert!(
            found.raw_data[..] == tensor.data[..],
            "{name}: `{}`",
            tensor.name
        );
    }
}

#[test]
fn an_independent_reader_finds_the_base_and_the_adapter_in_every_compiled_model() {
    let (mut nodes, mut tensors, mut inlined) = (0, 0, 0);
    for (name, path) in models() {
        let folder = tempfile::tempdir().unwrap();
        let output = adapted(&name, &path, folder.path());
        let (base, model) = (read(&path), read(&output));
        assert!(model.functions.is_empty(), "{name}");
        if base.functions.is_empty() {
            assert_eq!(base.opset_import, model.opset_import, "{name}");
            nodes += check_graph(&name, &base.graph, &model.graph);
        } else {
            inlined += 1;
        }
        let adapter = output.with_file_name("adapter.safetensors");
        if ["llama.dynamo_ortbasic", "synthetic.function_attributes"].contains(&name.as_str()) {
            // Written again without an adapter: no layer of theirs has a name and a plain product.
            assert!(!adapter.exists());
            continue;
        }
        let all = read_tensors(&adapter, &mut Sink::new()).unwrap();
        assert!(!all.is_empty(), "{name}");
        for tensor in &all {
            check_tensor(&name, &model, tensor);
        }
        tensors += all.len();
    }
    eprintln!("{nodes} new nodes, {tensors} tensors, {inlined} with functions");
    assert!(
        nodes > 1_500 && tensors > 600,
        "{nodes} nodes, {tensors} tensors"
    );
}
