//! The sweep on graphs of a few nodes, and its diagnostics.

use super::gradients;
use crate::diag::{Code, Diagnostic, Sink};
use crate::graph::{Attribute, Graph, Model, OpName, Tensor, Value, ValueId, ValueKind};
use crate::ty::{DType, Dim, Shape, TensorType};

/// A graph in the making: values are known by name.
pub(super) struct Build(pub Model);

impl Build {
    pub fn new(opset: i64) -> Build {
        Build(Model::new("test.onnx", Graph::new("test"), 10, opset))
    }

    pub fn input(mut self, name: &str, dtype: DType, dims: &[&str]) -> Build {
        let dims = dims.iter().map(|dim| match dim.parse::<i64>() {
            Ok(size) => Dim::from(size),
            Err(_) => Dim::symbol(dim),
        });
        let ty = TensorType::new(dtype, Shape(dims.collect()));
        let kind = ValueKind::Input { default: None };
        let value = Value::with_kind(name, Some(ty), kind);
        self.0.graph.add_value(value).unwrap();
        self
    }

    pub fn weight(mut self, name: &str, dims: &[i64]) -> Build {
        let count = dims.iter().product::<i64>() as usize;
        let tensor = Tensor::from_f32(dims, &vec![0.5; count]);
        let value = Value::initializer(name, tensor);
        self.0.graph.add_value(value).unwrap();
        self
    }

    pub fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Build {
        let value = Value::initializer(name, Tensor::from_f32(dims, values));
        self.0.graph.add_value(value).unwrap();
        self
    }

    pub fn scalar(self, name: &str, value: f32) -> Build {
        self.floats(name, &[], &[value])
    }

    pub fn ints(mut self, name: &str, values: &[i64]) -> Build {
        let tensor = Tensor::from_i64(&[values.len() as i64], values);
        let value = Value::initializer(name, tensor);
        self.0.graph.add_value(value).unwrap();
        self
    }

    pub fn node(self, op: &str, operands: &[&str], result: &str) -> Build {
        self.node_with(op, operands, result, Vec::new())
    }

    pub fn node_with(
        mut self,
        op: &str,
        operands: &[&str],
        result: &str,
        attributes: Vec<Attribute>,
    ) -> Build {
        let graph = &mut self.0.graph;
        let operands: Vec<Option<ValueId>> = operands
            .iter()
            .map(|name| Some(graph.find_value(name).unwrap()))
            .collect();
        let result = graph.add_value(Value::computed(result, None)).unwrap();
        let name = format!("/{op}");
        graph.add_node(
            OpName::new("", op),
            &name,
            attributes,
            &operands,
            &[Some(result)],
        );
        self
    }

    pub fn sum(self, value: &str) -> Build {
        let drop = vec![Attribute::int("keepdims", 0)];
        self.node_with("ReduceSum", &[value], "loss", drop)
    }

    /// The gradients of `loss`, and the operators that they took.
    pub fn differentiated(mut self, wrt: &[&str]) -> (Model, Vec<ValueId>, Vec<String>) {
        let mut sink = Sink::new();
        let before = self.0.graph.order().unwrap();
        let found = self.run(wrt, &mut sink);
        let found = found.unwrap_or_else(|| panic!("{:#?}", sink.diagnostics()));
        let graph = &self.0.graph;
        let new: Vec<String> = graph
            .order()
            .unwrap()
            .into_iter()
            .filter(|node| !before.contains(node))
            .map(|node| graph.node(node).op.to_string())
            .collect();
        (self.0, found, new)
    }

    fn run(&mut self, wrt: &[&str], sink: &mut Sink) -> Option<Vec<ValueId>> {
        let graph = &self.0.graph;
        let loss = graph.find_value("loss").unwrap();
        let wrt: Vec<ValueId> = wrt
            .iter()
            .map(|name| graph.find_value(name).unwrap())
            .collect();
        gradients(&mut self.0, loss, &wrt, sink).ok()
    }

    /// The only diagnostic; the graph must be as it was.
    #[track_caller]
    fn refused(mut self, wrt: &[&str]) -> Diagnostic {
        let mut sink = Sink::new();
        let before = self.0.graph.node_count();
        assert!(self.run(wrt, &mut sink).is_none());
        assert_eq!(self.0.graph.node_count(), before);
        assert_eq!(sink.diagnostics().len(), 1, "{:#?}", sink.diagnostics());
        sink.diagnostics()[0].clone()
    }
}

fn linear(opset: i64) -> Build {
    Build::new(opset)
        .input("x", DType::F32, &["B", "3"])
        .weight("w", &[3, 4])
        .node("MatMul", &["x", "w"], "y")
}

#[test]
fn a_gradient_has_the_type_of_its_parameter() {
    let (model, found, _) = linear(17).sum("y").differentiated(&["w", "x"]);
    let types: Vec<String> = found
        .iter()
        .map(|id| model.graph.value(*id).ty.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(types, ["f32[3, 4]", "f32[B, 3]"]);
}

#[test]
fn only_what_is_asked_for_is_emitted() {
    let (.., new) = linear(17).sum("y").differentiated(&["w"]);
    assert_eq!(new, ["Shape", "Concat", "Expand", "Gemm"]);
    let (.., new) = linear(17).sum("y").differentiated(&["x"]);
    // The weight is read as it is stored.
    assert_eq!(new, ["Shape", "Concat", "Expand", "Gemm"]);
}

#[test]
fn a_stopped_gradient_goes_no_further() {
    let build = linear(17).node("Identity", &["y"], "stopped");
    let mut build = build.node("Mul", &["y", "stopped"], "z").sum("z");
    let graph = &mut build.0.graph;
    let node = graph
        .producer(graph.find_value("stopped").unwrap())
        .unwrap();
    graph.node_mut(node).metadata = vec![("peftc.gradient".to_owned(), "stop".to_owned())];
    let (.., new) = build.differentiated(&["w"]);
    assert_eq!(new.iter().filter(|op| *op == "Mul").count(), 1, "{new:?}");
}

#[test]
fn slices_side_by_side_are_joined_without_padding() {
    let build = Build::new(17)
        .input("x", DType::F32, &["B", "S", "6"])
        .ints("zero", &[0])
        .ints("half", &[3])
        .ints("end", &[i64::MAX])
        .ints("last", &[2])
        .node("Slice", &["x", "half", "end", "last"], "b")
        .node("Slice", &["x", "zero", "half", "last"], "a")
        .node("Mul", &["a", "b"], "y");
    let (.., new) = build.sum("y").differentiated(&["x"]);
    assert!(new.contains(&"Concat".to_owned()), "{new:?}");
    assert!(!new.contains(&"Pad".to_owned()), "{new:?}");
}

#[test]
fn sizes_are_read_from_inputs() {
    let build = Build::new(17)
        .input("x", DType::F32, &["B", "S", "2", "2"])
        .ints("rows", &[-1, 4])
        .node("Exp", &["x"], "e")
        .node("Reshape", &["e", "rows"], "r")
        .node("Exp", &["r"], "y");
    let (model, _, new) = build.sum("y").differentiated(&["x"]);
    assert!(new.contains(&"Shape".to_owned()), "{new:?}");
    let graph = &model.graph;
    for node in graph
        .node_ids()
        .filter(|node| graph.node(*node).op.is("Shape"))
    {
        let read = graph.operand(node, 0).unwrap();
        assert_eq!(&*graph.value(read).name, "x");
    }
}

#[test]
fn an_operator_without_a_gradient_is_shown_on_its_way() {
    let mut build = Build::new(17)
        .input("x", DType::F32, &["4"])
        .node("Exp", &["x"], "e")
        .node("Det", &["e"], "d");
    let graph = &mut build.0.graph;
    let det = graph.find_value("d").unwrap();
    graph.set_type(det, TensorType::new(DType::F32, Shape(Vec::new())));
    let diagnostic = build.sum("d").refused(&["x"]);
    assert_eq!(diagnostic.code, Code::E0701);
    assert!(
        diagnostic.message.contains("`Det` is not known"),
        "{diagnostic:#?}"
    );
    assert_eq!(
        diagnostic.notes,
        ["the way is `x` → Exp `e` → Det `d` → ReduceSum `loss`"]
    );
    let diagnostic = Build::new(17)
        .input("x", DType::F32, &["4"])
        .node("Range", &["x", "x", "x"], "r")
        .sum("r")
        .refused(&["x"]);
    assert_eq!(diagnostic.code, Code::E0701);
    assert!(
        diagnostic.help[0].contains("adapt only layers behind"),
        "{diagnostic:#?}"
    );
}

#[test]
fn a_node_that_cannot_be_derived_says_why() {
    let diagnostic = Build::new(17)
        .input("x", DType::F32, &["B", "4"])
        .input("axes", DType::I64, &["1"])
        .node("ReduceSum", &["x", "axes"], "y")
        .sum("y")
        .refused(&["x"]);
    assert_eq!(diagnostic.code, Code::E0702);
    assert!(
        diagnostic.message.contains("its axes are not constants"),
        "{diagnostic:#?}"
    );
}

#[test]
fn a_parameter_that_does_not_reach_the_loss_is_named() {
    let diagnostic = linear(17).weight("v", &[3]).sum("y").refused(&["w", "v"]);
    assert_eq!(diagnostic.code, Code::E0703);
    assert!(diagnostic.message.contains("`v`"), "{diagnostic:#?}");
    let diagnostic = linear(17)
        .node("Round", &["y"], "r")
        .sum("r")
        .refused(&["w"]);
    assert_eq!(diagnostic.code, Code::E0703);
    assert!(
        diagnostic.excerpts[0].text.contains("Round"),
        "{diagnostic:#?}"
    );
}

#[test]
fn the_loss_is_one_float() {
    let diagnostic = linear(17).node("Exp", &["y"], "loss").refused(&["w"]);
    assert_eq!(diagnostic.code, Code::E0704);
    assert!(diagnostic.message.contains("f32[B, 4]"), "{diagnostic:#?}");
}

#[test]
fn a_parameter_is_a_float_tensor() {
    let ids = linear(17).input("ids", DType::I64, &["B"]).sum("y");
    let diagnostic = ids.refused(&["ids"]);
    assert_eq!(diagnostic.code, Code::E0705);
    assert!(diagnostic.message.contains("i64[B]"), "{diagnostic:#?}");
}

#[test]
fn an_old_opset_is_refused() {
    let diagnostic = linear(9).sum("y").refused(&["w"]);
    assert_eq!(diagnostic.code, Code::E0706);
}
