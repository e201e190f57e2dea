//! The query of an attention, in every form that an attention has: one adapter gives the same everywhere.

use crate::adapters::{compiled, distance, outputs};
use crate::differentiated::{floats, new_node};
use crate::tolerances::RECORDED_RELATIVE;
use peftc::diag::Sink;
use peftc::graph::{Attribute, Graph, Model, OpName, Operand, Patch, Tensor};
use peftc::onnx;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::ty::{DType, Dim, Shape, TensorType};
use std::path::{Path, PathBuf};

const BATCH: i64 = 2;
const TOKENS: i64 = 5;
const HEADS: i64 = 4;
const SIZE: i64 = 8;
const ALL: i64 = HEADS * SIZE;
const OUT: i64 = 24;
const MICROSOFT: &str = "com.microsoft";

/// How a model has its attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As operators, with the factor of the scores here.
    OnQueries,
    OnKeys,
    Behind,
    DividedBehindACast,
    /// Batch and tokens are one axis in front of the layer.
    Rows,
    /// ONNX's operator, with the heads as an axis or side by side.
    Apart,
    Joined,
    /// ONNX Runtime's operators.
    MultiHead,
    Grouped,
    /// The same, with queries, keys and values of one layer.
    Packed,
}

const WAYS: &[Way] = &[
    Way::OnQueries,
    Way::OnKeys,
    Way::Behind,
    Way::DividedBehindACast,
    Way::Rows,
    Way::Apart,
    Way::Joined,
    Way::MultiHead,
    Way::Grouped,
    Way::Packed,
];

/// A graph in the making.
struct Build {
    patch: Patch,
    scope: &'static str,
    form: Form,
}

/// How an attention differs from the plain one.
#[derive(Clone, Copy)]
struct Form {
    /// What the weight of queries is multiplied with.
    queries: f32,
    /// Heads of keys and values.
    groups: i64,
}

const PLAIN: Form = Form {
    queries: 1.0,
    groups: HEADS,
};

impl Build {
    fn node(&mut self, op: &str, inputs: &[Operand], attributes: Vec<Attribute>) -> Operand {
        let mut node = new_node(op, inputs, attributes);
        node.name = format!("/attn/{}/{op}", self.scope);
        self.patch.node(node, None)
    }

    fn ints(&mut self, values: &[i64]) -> Operand {
        let tensor = Tensor::from_i64(&[values.len() as i64], values);
        self.patch.constant("sizes", tensor)
    }

    fn number(&mut self, value: f32) -> Operand {
        self.patch
            .constant("number", Tensor::from_f32(&[], &[value]))
    }

    /// `attn.<name>`, of torch's weight.
    fn linear(&mut self, name: &'static str, x: Operand, [input, output]: [i64; 2]) -> Operand {
        self.scope = name;
        let path = format!("attn.{name}.weight");
        let weight = match name {
            // The three below one another.
            "qkv_proj" => {
                let keys = self.form.groups * SIZE;
                let parts = [("q_proj", ALL), ("k_proj", keys), ("v_proj", keys)];
                let parts = parts.map(|(part, output)| weight(part, output, input));
                let values: Vec<f32> = parts.iter().flatten().copied().collect();
                Tensor::from_f32(&[output, input], &values)
            }
            _ => {
                let by = if name == "q_proj" {
                    self.form.queries
                } else {
                    1.0
                };
                let values = weight(name, output, input);
                let values: Vec<f32> = values.into_iter().map(|value| by * value).collect();
                Tensor::from_f32(&[output, input], &values)
            }
        };
        let weight = self.patch.constant(&path, weight);
        let order = vec![Attribute::ints("perm", [1, 0])];
        let turned = self.node("Transpose", &[weight], order);
        let product = self.node("MatMul", &[x, turned], vec![]);
        self.scope = "";
        product
    }

    /// `[batch, heads, tokens, size]`.
    fn apart(&mut self, x: Operand) -> Operand {
        let target = self.ints(&[0, 0, HEADS, SIZE]);
        let x = self.node("Reshape", &[x, target], vec![]);
        let order = vec![Attribute::ints("perm", [0, 2, 1, 3])];
        self.node("Transpose", &[x], order)
    }

    fn joined(&mut self, x: Operand, target: &[i64]) -> Operand {
        let order = vec![Attribute::ints("perm", [0, 2, 1, 3])];
        let x = self.node("Transpose", &[x], order);
        let target = self.ints(target);
        self.node("Reshape", &[x, target], vec![])
    }

    /// 0 for a token and those before it.
    fn causal(&mut self) -> Operand {
        let cells = (0..TOKENS).flat_map(|q| (0..TOKENS).map(move |k| (q, k)));
        let values: Vec<f32> = cells
            .map(|(q, k)| if k <= q { 0.0 } else { -1e9 })
            .collect();
        let mask = Tensor::from_f32(&[1, 1, TOKENS, TOKENS], &values);
        self.patch.constant("causal", mask)
    }

    fn lengths(&mut self) -> [Operand; 2] {
        let last = [TOKENS as i32 - 1; BATCH as usize];
        let bytes: Vec<u8> = last.iter().flat_map(|n| n.to_le_bytes()).collect();
        let lengths = Tensor::from_raw(DType::I32, &[BATCH], bytes);
        let total = Tensor::from_raw(DType::I32, &[], (TOKENS as i32).to_le_bytes().to_vec());
        [("lengths", lengths), ("total", total)].map(|(name, t)| self.patch.constant(name, t))
    }

    /// An operator with a result and two caches.
    fn whole(
        &mut self,
        (domain, op): (&str, &str),
        inputs: Vec<Option<Operand>>,
        attributes: Vec<Attribute>,
    ) -> Operand {
        let mut node = new_node(op, &[], attributes);
        (node.op, node.inputs) = (OpName::new(domain, op), inputs);
        node.name = format!("/attn/{op}");
        let results = ["", "keys", "values"].map(|end| (format!("whole{end}"), None));
        let results = match domain {
            MICROSOFT => &results[..],
            _ => &results[..1],
        };
        self.patch.node_with_results(node, results.to_vec())[0]
    }
}

fn weight(name: &str, output: i64, input: i64) -> Vec<f32> {
    let all = floats(name, &[output, input], 0.4).to_f64s().unwrap();
    all.into_iter().map(|value| value as f32).collect()
}

fn attention(way: Way, form: Form) -> Model {
    let mut build = Build {
        patch: Patch::new(),
        scope: "",
        form,
    };
    let b = &mut build;
    b.patch.front();
    let dims = [BATCH, TOKENS, ALL].map(Dim::from);
    let x = TensorType::new(DType::F32, Shape::new(dims));
    let x = b.patch.input("x", x, None);
    let [q, k, v] = match way {
        Way::Packed => {
            let all = b.linear("qkv_proj", x, [ALL, ALL + 2 * form.groups * SIZE]);
            [all; 3]
        }
        _ => {
            let keys = form.groups * SIZE;
            let parts = [("q_proj", ALL), ("k_proj", keys), ("v_proj", keys)];
            parts.map(|(name, output)| b.linear(name, x, [ALL, output]))
        }
    };
    let factor = 1.0 / (SIZE as f32).sqrt();
    let count = |name: &str| match name.starts_with("kv") {
        true => Attribute::int(name, form.groups),
        false => Attribute::int(name, HEADS),
    };
    let merged = match way {
        Way::Apart => {
            let [q, k, v] = [q, k, v].map(|x| b.apart(x));
            let is_causal = vec![Attribute::int("is_causal", 1)];
            let inputs = [q, k, v].map(Some).to_vec();
            let y = b.whole(("", "Attention"), inputs, is_causal);
            b.joined(y, &[0, 0, ALL])
        }
        Way::Joined => {
            let is_causal = Attribute::int("is_causal", 1);
            let attributes = vec![count("q_num_heads"), count("kv_num_heads"), is_causal];
            b.whole(("", "Attention"), [q, k, v].map(Some).to_vec(), attributes)
        }
        Way::MultiHead => {
            let mask = b.causal();
            let inputs = vec![Some(q), Some(k), Some(v), None, None, Some(mask)];
            b.whole(
                (MICROSOFT, "MultiHeadAttention"),
                inputs,
                vec![count("num_heads")],
            )
        }
        Way::Grouped | Way::Packed => {
            let [lengths, total] = b.lengths();
            let others = match way {
                Way::Packed => [None; 2],
                _ => [Some(k), Some(v)],
            };
            let [k, v] = others;
            let inputs = vec![Some(q), k, v, None, None, Some(lengths), Some(total)];
            let attributes = vec![count("num_heads"), count("kv_num_heads")];
            b.whole((MICROSOFT, "GroupQueryAttention"), inputs, attributes)
        }
        _ => {
            let [mut q, mut k, v] = [q, k, v].map(|x| b.apart(x));
            let by = b.number(factor);
            if way == Way::OnQueries || way == Way::Rows {
                q = b.node("Mul", &[by, q], vec![]);
            }
            if way == Way::OnKeys {
                k = b.node("Mul", &[k, by], vec![]);
            }
            if way == Way::DividedBehindACast {
                let to = vec![Attribute::int("to", i64::from(DType::F32.number()))];
                let root = b.number(1.0 / factor);
                q = b.node("Div", &[q, root], vec![]);
                q = b.node("Cast", &[q], to);
            }
            let order = vec![Attribute::ints("perm", [0, 1, 3, 2])];
            let k = b.node("Transpose", &[k], order);
            let mut scores = b.node("MatMul", &[q, k], vec![]);
            if way == Way::Behind {
                scores = b.node("Mul", &[scores, by], vec![]);
            }
            let mask = b.causal();
            let scores = b.node("Add", &[scores, mask], vec![]);
            let axis = vec![Attribute::int("axis", -1)];
            let weights = b.node("Softmax", &[scores], axis);
            let y = b.node("MatMul", &[weights, v], vec![]);
            match way {
                Way::Rows => b.joined(y, &[-1, ALL]),
                _ => b.joined(y, &[0, 0, ALL]),
            }
        }
    };
    let mut y = b.linear("o_proj", merged, [ALL, OUT]);
    if way == Way::Rows {
        let target = b.ints(&[BATCH, TOKENS, OUT]);
        y = b.node("Reshape", &[y, target], vec![]);
    }
    build.patch.named_output(y, "y");
    let mut graph = Graph::new("attention");
    graph.apply(build.patch).unwrap();
    let mut model = Model::new("attention.onnx", graph, 10, 23);
    model.opsets.push((MICROSOFT.to_owned(), 1));
    model
}

fn saved(way: Way, form: Form, folder: &Path) -> PathBuf {
    let path = folder.join("attention.onnx");
    onnx::save(&attention(way, form), &path, &mut Sink::new()).unwrap();
    path
}

fn given() -> NamedTensors {
    let mut inputs = NamedTensors::default();
    inputs.push("x", floats("x", &[BATCH, TOKENS, ALL], 2.0));
    inputs
}

/// What the model gives without an adapter, and with a prompt and what else there is.
fn adapted(way: Way, form: Form, before: &str) -> [HostTensor; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(way, form, folder.path());
    let mut values = NamedTensors::default();
    values.push("attn.o_proj.P", floats("P", &[3, ALL], 1.5));
    values.push("attn.o_proj.gate", HostTensor::from_f32(&[1], &[0.8]));
    let file = folder.path().join("values.safetensors");
    std::fs::write(&file, values.to_safetensors().unwrap()).unwrap();
    let others = match way {
        Way::Packed => "keys = \".qkv_proj\", values = \".qkv_proj\", ",
        _ => "",
    };
    let spec = format!(
        "use std::adaption_prompt\n\
         method three_times() on linear {{\n  forward(x, y) {{ 3 * y }}\n}}\n\
         adapter a {{\n{before}  adapt \"o_proj\" with adaption_prompt({others}tokens = 3)\n}}\n"
    );
    let adapted = compiled(&spec, &path, Some(&file), folder.path());
    [&path, &adapted].map(|path| outputs(path, &given()).get("y").unwrap().clone())
}

fn check(way: Way, found: &HostTensor, wanted: &HostTensor) {
    let (difference, size) = distance(found, wanted);
    eprintln!("{way:?}: {:.1e}", difference / size);
    assert!(
        difference <= RECORDED_RELATIVE * size,
        "{way:?}: {difference:e} of {size:e}"
    );
}

#[test]
fn an_adapter_reads_one_query_whatever_the_form_of_the_attention() {
    let mut first: Option<HostTensor> = None;
    for way in WAYS {
        let [base, found] = adapted(*way, PLAIN, "");
        let (effect, _) = distance(&found, &base);
        assert!(effect > 0.1, "{way:?}: {effect}");
        check(*way, &found, first.get_or_insert_with(|| found.clone()));
    }
}

/// It is what an adapter in front of it makes of it, as a layer with other weights does.
#[test]
fn the_query_is_that_of_the_adapted_model() {
    let stronger = Form {
        queries: 3.0,
        ..PLAIN
    };
    let plain = adapted(Way::Behind, PLAIN, "")[1].clone();
    for way in WAYS.iter().filter(|way| **way != Way::Packed) {
        let before = "  adapt \"q_proj\" with three_times()\n";
        let [_, found] = adapted(*way, PLAIN, before);
        let [_, wanted] = adapted(*way, stronger, "");
        let (effect, _) = distance(&wanted, &plain);
        assert!(effect > 0.1, "{way:?}: {effect}");
        check(*way, &found, &wanted);
    }
}

#[test]
fn heads_may_share_keys_also_those_of_one_layer() {
    let shared = Form { groups: 2, ..PLAIN };
    let mut first: Option<HostTensor> = None;
    for way in [Way::Joined, Way::Grouped, Way::Packed] {
        let [base, found] = adapted(way, shared, "");
        let (effect, _) = distance(&found, &base);
        assert!(effect > 0.1, "{way:?}: {effect}");
        check(way, &found, first.get_or_insert_with(|| found.clone()));
    }
}
