//! Calls of ONNX Runtime's own operators (`com.microsoft`), and of ONNX's operators in forms that its
//! node cases lack.

mod attention;

use crate::mutated_cases::Node;
use peftc::graph::{Attribute, AttributeValue};
use peftc::reference::Array;
use peftc::ty::DType;

/// Numbers without a pattern that an operator could follow by chance, within ±1.
fn floats(dims: &[usize], seed: usize) -> Array {
    let count: usize = dims.iter().product();
    // The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    let one = |i: usize| {
        let mut z = ((i + 1) * 1_000_003 + seed) as u64;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 24 bits, which single precision holds.
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    Array::floats(DType::F32, dims, (0..count).map(one).collect()).unwrap()
}

/// Numbers from `least` on, below `least + count`.
fn ints(dtype: DType, dims: &[usize], seed: usize, least: i128, count: i128) -> Array {
    let total: usize = dims.iter().product();
    let one = |i: usize| least + ((i * 7919 + seed * 104_729 + 13) as i128 % count);
    Array::ints(dtype, dims, (0..total).map(one).collect()).unwrap()
}

fn list(dtype: DType, values: &[i128]) -> Array {
    Array::ints(dtype, &[values.len()], values.to_vec()).unwrap()
}

fn single(dtype: DType, value: i128) -> Array {
    Array::ints(dtype, &[], vec![value]).unwrap()
}

fn number(value: f32) -> Array {
    Array::floats(DType::F32, &[], vec![f64::from(value)]).unwrap()
}

/// Cosines and sines of so many positions.
fn caches(positions: usize, half: usize) -> (Array, Array) {
    let angle = |i: usize| (i / half) as f64 / 10_f64.powf((i % half) as f64 / half as f64);
    let table = |f: fn(f64) -> f64| {
        let data = (0..positions * half)
            .map(|i| f64::from(f(angle(i)) as f32))
            .collect();
        Array::floats(DType::F32, &[positions, half], data).unwrap()
    };
    (table(f64::cos), table(f64::sin))
}

/// A node under construction.
fn node(op_type: &str, operands: Vec<Option<Array>>) -> Node {
    Node {
        name: op_type.to_owned(),
        domain: "com.microsoft".to_owned(),
        op_type: op_type.to_owned(),
        opset: 1,
        attributes: Vec::new(),
        operands,
        results: 1,
    }
}

impl Node {
    fn int(mut self, name: &str, value: i64) -> Node {
        self.attributes.push(Attribute::int(name, value));
        self
    }

    fn ints(mut self, name: &str, values: &[i64]) -> Node {
        self.attributes.push(Attribute::ints(name, values));
        self
    }

    fn float(mut self, name: &str, value: f32) -> Node {
        self.attributes.push(Attribute::float(name, value));
        self
    }

    fn floats(mut self, name: &str, values: &[f32]) -> Node {
        let value = AttributeValue::Floats(values.to_vec());
        self.attributes.push(Attribute::new(name, value));
        self
    }

    fn word(mut self, name: &str, value: &str) -> Node {
        self.attributes.push(Attribute::string(name, value));
        self
    }

    fn results(mut self, count: usize) -> Node {
        self.results = count;
        self
    }

    /// An operator of ONNX itself.
    fn onnx(mut self, opset: i64) -> Node {
        self.domain.clear();
        self.opset = opset;
        self
    }
}

fn activations() -> Vec<Node> {
    let x = || Some(floats(&[2, 3, 8], 1));
    let bias = || Some(floats(&[8], 2));
    vec![
        node("Gelu", vec![x()]),
        node("QuickGelu", vec![x()]),
        node("QuickGelu", vec![x()]).float("alpha", 0.7),
        node("FastGelu", vec![x()]),
        node("FastGelu", vec![x(), bias()]),
        node("BiasGelu", vec![x(), bias()]),
        node(
            "Trilu",
            vec![Some(floats(&[2, 4, 5], 1)), Some(single(DType::I64, 1))],
        ),
        node("Inverse", vec![Some(floats(&[2, 4, 4], 5))]),
        node(
            "Unique",
            vec![Some(
                Array::floats(DType::F32, &[5], vec![2., 1., 2., 3., 1.]).unwrap(),
            )],
        )
        .results(3),
    ]
}

fn normalizations() -> Vec<Node> {
    let (x, skip) = (
        || Some(floats(&[2, 3, 8], 1)),
        || Some(floats(&[2, 3, 8], 2)),
    );
    let weight = |seed| Some(floats(&[8], seed));
    let ids = |count| Some(ints(DType::I32, &[2, 3], 1, 0, count));
    let table = |rows, seed| Some(floats(&[rows, 8], seed));
    let mask = Some(
        list(DType::I32, &[1, 1, 1, 1, 1, 0])
            .reshaped(&[2, 3])
            .unwrap(),
    );
    vec![
        node(
            "SkipLayerNormalization",
            vec![x(), skip(), weight(3), weight(4), weight(5)],
        )
        .float("epsilon", 1e-5),
        node("SkipLayerNormalization", vec![x(), skip(), weight(3)]),
        node(
            "SkipSimplifiedLayerNormalization",
            vec![x(), skip(), weight(3)],
        )
        .float("epsilon", 1e-6),
        node(
            "SkipSimplifiedLayerNormalization",
            vec![x(), skip(), weight(3), weight(4)],
        ),
        node("SimplifiedLayerNormalization", vec![x(), weight(3)])
            .float("epsilon", 1e-5)
            .int("axis", -1)
            .int("stash_type", 1)
            .onnx(17),
        node(
            "EmbedLayerNormalization",
            vec![
                ids(9),
                ids(2),
                table(9, 1),
                table(5, 2),
                table(2, 3),
                weight(4),
                weight(5),
                mask,
            ],
        )
        .results(2),
        node(
            "EmbedLayerNormalization",
            vec![
                ids(9),
                None,
                table(9, 1),
                table(5, 2),
                None,
                weight(4),
                weight(5),
            ],
        )
        .results(2),
    ]
}

fn products() -> Vec<Node> {
    let fused = |a: &[usize], b: &[usize]| {
        node("FusedMatMul", vec![Some(floats(a, 1)), Some(floats(b, 2))]).float("alpha", 0.25)
    };
    let gemm = || {
        let operands = [floats(&[3, 4], 1), floats(&[4, 5], 2), floats(&[5], 3)];
        node("FusedGemm", operands.map(Some).to_vec())
    };
    let conv = || {
        let operands = [
            floats(&[1, 2, 5, 5], 1),
            floats(&[3, 2, 3, 3], 2),
            floats(&[3], 3),
        ];
        node("FusedConv", operands.map(Some).to_vec())
    };
    vec![
        fused(&[2, 3, 4], &[2, 4, 5]),
        fused(&[2, 4, 3], &[2, 4, 5]).int("transA", 1),
        fused(&[2, 3, 4], &[5, 4]).int("transB", 1),
        fused(&[3, 2, 4], &[2, 4, 5]).int("transBatchA", 1),
        fused(&[2, 3, 4], &[4, 2, 5]).int("transBatchB", 1),
        fused(&[4, 2, 3], &[5, 2, 4])
            .int("transA", 1)
            .int("transB", 1)
            .int("transBatchA", 1)
            .int("transBatchB", 1),
        gemm().word("activation", "Relu").float("alpha", 0.5),
        gemm()
            .word("activation", "LeakyRelu")
            .float("activation_alpha", 0.2)
            .float("beta", 2.0),
        conv().word("activation", "Relu"),
        conv()
            .word("activation", "Clip")
            .floats("activation_params", &[-0.5, 1.5])
            .int("group", 1)
            .ints("pads", &[1, 1, 1, 1]),
    ]
}

fn packed_weights() -> Vec<Node> {
    let bytes = |dims: &[usize], seed| Some(ints(DType::U8, dims, seed, 0, 256));
    let nbits = |bits: i64, zero: Option<Array>| {
        let operands = vec![
            Some(floats(&[2, 40], 1)),
            bytes(&[6, 2, 32 * bits as usize / 8], 2),
            Some(floats(&[6, 2], 3)),
            zero,
        ];
        node("MatMulNBits", operands)
            .int("K", 40)
            .int("N", 6)
            .int("block_size", 32)
            .int("bits", bits)
    };
    let mut biased = nbits(4, None);
    biased.operands.extend([None, Some(floats(&[6], 4))]);
    let gather = |data: Array, zero: Option<Array>| {
        let indices = list(DType::I64, &[3, 0, 3, 1]);
        node(
            "GatherBlockQuantized",
            vec![Some(data), Some(indices), Some(floats(&[4, 2], 3)), zero],
        )
        .int("block_size", 16)
    };
    vec![
        nbits(4, None),
        nbits(4, bytes(&[6, 1], 5)),
        nbits(8, None),
        nbits(8, bytes(&[6, 2], 5)),
        nbits(2, None),
        nbits(4, Some(floats(&[6, 2], 6))),
        biased,
        gather(ints(DType::U4, &[4, 32], 1, 0, 16), None),
        gather(
            ints(DType::I4, &[4, 32], 1, -8, 16),
            Some(ints(DType::I4, &[4, 2], 2, -8, 16)),
        ),
        gather(ints(DType::U8, &[4, 16], 1, 0, 256), None),
        gather(ints(DType::U8, &[4, 16], 1, 0, 256), bytes(&[4, 1], 2)),
        gather(ints(DType::U8, &[4, 32], 1, 0, 256), None).int("bits", 8),
    ]
}

fn quantized() -> Vec<Node> {
    let u8s = |dims: &[usize], seed| Some(ints(DType::U8, dims, seed, 0, 256));
    // Two products with larger weights overflow 16 bits, in which some processors add them.
    let i8s = |dims: &[usize], seed| Some(ints(DType::I8, dims, seed, -60, 120));
    let scale = |value| Some(number(value));
    let zero = |value| Some(single(DType::U8, value));
    let x = || [u8s(&[2, 3, 4], 1), scale(0.031), zero(117)];
    let z = || [scale(0.043), zero(101)];
    let two = |name| {
        let b = [u8s(&[3, 1], 2), scale(0.02), zero(90)];
        node(name, [&x()[..], &b, &z()].concat())
    };
    let one = |name| node(name, [&x()[..], &z()].concat());
    let image = || [u8s(&[1, 2, 5, 6], 1), scale(0.031), zero(117)];
    let condition = list(DType::Bool, &[1, 0, 0, 1]);
    let other = [u8s(&[2, 3, 4], 3), scale(0.02), zero(90)];
    let choice = [&[Some(condition)][..], &x(), &other, &z()].concat();
    vec![
        two("QLinearAdd"),
        two("QLinearMul"),
        one("QLinearSigmoid"),
        one("QLinearLeakyRelu").float("alpha", 0.3),
        one("QLinearSoftmax").int("axis", -1).int("opset", 13),
        node("QLinearWhere", choice),
        node("QLinearConcat", [&z()[..], &x(), &other].concat()).int("axis", 1),
        node("QLinearAveragePool", [&image()[..], &z()].concat()).ints("kernel_shape", &[2, 3]),
        node("QLinearGlobalAveragePool", [&image()[..], &z()].concat()),
        node(
            "MatMulIntegerToFloat",
            vec![
                u8s(&[3, 4], 1),
                i8s(&[4, 5], 2),
                scale(0.03),
                Some(floats(&[5], 3)),
                zero(120),
                None,
                Some(floats(&[5], 4)),
            ],
        ),
        node(
            "DynamicQuantizeMatMul",
            vec![
                Some(floats(&[3, 4], 1)),
                i8s(&[4, 5], 2),
                Some(floats(&[5], 3)),
            ],
        ),
        node(
            "MatMulInteger16",
            vec![
                Some(ints(DType::I16, &[3, 4], 1, -300, 600)),
                Some(ints(DType::I16, &[4, 5], 2, -300, 600)),
            ],
        ),
        node(
            "DequantizeLinear",
            vec![u8s(&[2, 3], 1), scale(0.25), zero(7)],
        ),
        node(
            "QuantizeLinear",
            vec![Some(floats(&[2, 3], 1)), scale(0.011), zero(7)],
        ),
    ]
}

/// Operators of ONNX in forms that its node cases lack.
fn of_onnx() -> Vec<Node> {
    let image = || Some(floats(&[1, 4, 6, 6], 1));
    let q = |op, operands| node(op, operands).onnx(21);
    let i4 = |dims: &[usize], seed| Some(ints(DType::I4, dims, seed, -8, 16));
    vec![
        node(
            "Conv",
            vec![
                image(),
                Some(floats(&[6, 2, 3, 3], 2)),
                Some(floats(&[6], 3)),
            ],
        )
        .int("group", 2)
        .ints("strides", &[2, 1])
        .ints("dilations", &[1, 2])
        .ints("pads", &[0, 1, 2, 1])
        .onnx(17),
        node(
            "ConvTranspose",
            vec![
                image(),
                Some(floats(&[4, 3, 3, 3], 2)),
                Some(floats(&[6], 3)),
            ],
        )
        .int("group", 2)
        .ints("strides", &[2, 2])
        .ints("pads", &[1, 0, 1, 2])
        .ints("output_padding", &[1, 0])
        .onnx(17),
        q(
            "DequantizeLinear",
            vec![i4(&[3, 32], 1), Some(floats(&[3, 2], 2)), i4(&[3, 2], 3)],
        )
        .int("axis", 1)
        .int("block_size", 16),
        q(
            "QuantizeLinear",
            vec![
                Some(floats(&[3, 4], 1)),
                Some(floats(&[3], 5).reshaped(&[3]).unwrap()),
                None,
            ],
        )
        .int("axis", 0)
        .int("output_dtype", 3),
        node("LpNormalization", vec![Some(floats(&[2, 3, 4], 1))])
            .int("p", 1)
            .int("axis", 1)
            .onnx(17),
        node(
            "MaxRoiPool",
            vec![
                image(),
                Some(
                    Array::floats(
                        DType::F32,
                        &[2, 5],
                        vec![0., 0., 1., 4., 5., 0., 2., 0., 3., 3.],
                    )
                    .unwrap(),
                ),
            ],
        )
        .ints("pooled_shape", &[2, 3])
        .onnx(17),
    ]
}

/// Every case; ONNX Runtime runs them all on the CPU.
pub(crate) fn contrib_cases() -> Vec<Node> {
    let families: &[fn() -> Vec<Node>] = &[
        activations,
        normalizations,
        products,
        attention::rotations,
        attention::attentions,
        attention::grouped_attentions,
        packed_weights,
        quantized,
        of_onnx,
    ];
    let mut all: Vec<Node> = families.iter().flat_map(|family| family()).collect();
    for (index, node) in all.iter_mut().enumerate() {
        node.name = format!("{index} {}", node.op_type);
    }
    all
}
