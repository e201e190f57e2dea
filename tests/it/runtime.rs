//! ONNX Runtime itself: loading, running, and its objections.

use crate::models;
use peftc::diag::{Code, Sink, SourceMap, render};
use peftc::runtime::{
    self, Feed, HostTensor, Library, ModelSource, NamedTensors, Network, Optimization, Options,
    Provider, Replay, Session, Stateful, Surroundings, Wanted,
};
use peftc::ty::DType;
use std::path::PathBuf;

/// ONNX Runtime, installed now if it is missing; fails the test when that fails.
pub fn library() -> &'static Library {
    let executable = PathBuf::from(env!("CARGO_BIN_EXE_peftc"));
    let surroundings = Surroundings::new(|name| std::env::var_os(name), Some(executable));
    let mut say = |line: &str| eprintln!("{line}");
    runtime::ready(&surroundings, Wanted::Cpu, Network::Allowed, &mut say).unwrap_or_else(
        |diagnostic| {
            let style = render::Style::PLAIN;
            panic!("{}", render::render(&diagnostic, &SourceMap::new(), style))
        },
    )
}

fn open(bytes: &[u8], options: &Options) -> Result<Session, Sink> {
    let mut sink = Sink::new();
    let source = ModelSource::Bytes {
        name: "test",
        bytes,
    };
    Session::open(library(), source, options, &mut sink).map_err(|_| sink)
}

fn x(dims: &[i64], values: &[f32]) -> NamedTensors {
    NamedTensors(vec![("x".into(), HostTensor::from_f32(dims, values))])
}

#[test]
fn a_state_goes_from_run_to_run_and_stays_when_a_run_fails() {
    for replay in [Replay::Off, Replay::On] {
        check_state(replay);
    }
}

fn check_state(replay: Replay) {
    let options = Options {
        replay,
        ..Options::default()
    };
    let session = open(&models::running_sum(), &options).unwrap();
    let feed = Feed {
        output: "next".into(),
        input: "state".into(),
    };
    let mut summing = Stateful::new(session, vec![feed]);
    let mut sink = Sink::new();
    // There is no state yet.
    assert!(summing.run(&x(&[2], &[1.0, 2.0]), &mut sink).is_err());
    let start = HostTensor::from_f32(&[2], &[10.0, 0.0]);
    summing.set("state", &start, &mut sink).unwrap();
    for sum in [13.0, 16.0, 19.0] {
        let found = summing.run(&x(&[2], &[1.0, 2.0]), &mut sink).unwrap();
        assert_eq!(found.0.len(), 1);
        assert_eq!(found.get("sum").unwrap().to_f64s().unwrap(), [sum]);
    }
    assert!(summing.run(&x(&[3], &[1.0, 2.0, 3.0]), &mut sink).is_err());
    let state = summing.get("state").unwrap().to_f64s().unwrap();
    assert_eq!(state, [13.0, 6.0]);
    summing.set("state", &start, &mut sink).unwrap();
    let found = summing.run(&x(&[2], &[0.5, 0.25]), &mut sink).unwrap();
    assert_eq!(found.get("sum").unwrap().to_f64s().unwrap(), [10.75]);
    let state = summing.get("state").unwrap().to_f64s().unwrap();
    assert_eq!(state, [10.5, 0.25]);
    // A state of another shape is refused.
    assert!(
        summing
            .set("state", &HostTensor::from_f32(&[1], &[0.0]), &mut sink)
            .is_err()
    );
    assert!(summing.set("other", &start, &mut sink).is_err());
    assert_eq!(
        codes(&sink),
        [Code::E0805, Code::E0805, Code::E0805, Code::E0805]
    );
}

fn codes(sink: &Sink) -> Vec<Code> {
    sink.diagnostics().iter().map(|d| d.code).collect()
}

#[test]
fn the_api_level_is_the_lowest_with_adapters() {
    assert_eq!(ort::MINOR_VERSION, 20);
    let lowest = format!("1.{}", ort::MINOR_VERSION);
    assert_eq!(runtime::LOWEST_VERSION, lowest);
}

#[test]
fn a_model_runs_at_every_optimization_level() {
    use Optimization::{All, Basic, Disabled, Extended};
    for optimization in [Disabled, Basic, Extended, All] {
        let options = Options {
            optimization,
            threads: std::num::NonZeroUsize::new(1),
            ..Options::default()
        };
        let mut session = open(&models::add_bias(), &options).unwrap();
        assert_eq!(session.inputs()[0].to_string(), "x: f32[N, 2]");
        assert_eq!(session.outputs()[0].name, "sum");
        let mut sink = Sink::new();
        let outputs = session.run(&x(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), &mut sink);
        let outputs = outputs.unwrap();
        let sum = outputs.get("sum").unwrap();
        assert_eq!(
            sum,
            &HostTensor::from_f32(&[2, 2], &[11.0, 22.0, 13.0, 24.0])
        );
    }
}

#[test]
fn no_rows_are_rows_too() {
    let mut session = open(&models::add_bias(), &Options::default()).unwrap();
    let outputs = session.run(&x(&[0, 2], &[]), &mut Sink::new()).unwrap();
    assert_eq!(outputs.get("sum").unwrap().dims(), [0, 2]);
}

#[test]
fn every_misfit_of_the_inputs_is_reported_at_once() {
    let mut session = open(&models::add_bias(), &Options::default()).unwrap();
    let mut sink = Sink::new();
    let ints = HostTensor::from_i64(&[1, 2], &[1, 2]);
    let inputs = NamedTensors(vec![("x".into(), ints.clone()), ("y".into(), ints)]);
    assert!(session.run(&inputs, &mut sink).is_err());
    assert_eq!(codes(&sink), [Code::E0805, Code::E0805]);
    for (tensors, words) in [
        (x(&[2], &[1.0, 2.0]), "rank 1, not 2"),
        (x(&[1, 3], &[1.0, 2.0, 3.0]), "axis 1 is 3, not 2"),
        (
            NamedTensors::default(),
            "nothing is given for the input `x`",
        ),
    ] {
        let mut sink = Sink::new();
        assert!(session.run(&tensors, &mut sink).is_err());
        let message = &sink.diagnostics()[0].message;
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn bytes_that_are_no_model_are_refused_in_onnx_runtimes_words() {
    for bytes in [&b""[..], b"not a model", &[0xff; 64]] {
        let sink = open(bytes, &Options::default()).unwrap_err();
        assert_eq!(codes(&sink), [Code::E0804]);
        assert!(sink.diagnostics()[0].notes[0].contains("ONNX Runtime says"));
    }
}

#[test]
fn a_provider_that_is_not_there_has_a_code() {
    if library().has_cuda() {
        eprintln!("skipped: this ONNX Runtime has the CUDA provider");
        return;
    }
    let options = Options {
        provider: Provider::Cuda(0),
        ..Options::default()
    };
    let sink = open(&models::add_bias(), &options).unwrap_err();
    assert_eq!(codes(&sink), [Code::E0807]);
}

#[test]
fn an_input_with_a_default_need_not_be_given() {
    use onnx_protobuf::{GraphProto, ModelProto};
    use protobuf::Message;
    let mut model = ModelProto::parse_from_bytes(&models::add_bias()).unwrap();
    let graph: &mut GraphProto = model.graph.as_mut().unwrap();
    graph.input.push(models::float_value("bias", &[Ok(2)]));
    let mut session = open(&model.write_to_bytes().unwrap(), &Options::default()).unwrap();
    assert_eq!(session.inputs().len(), 1);
    assert_eq!(session.optional_inputs()[0].name, "bias");
    let mut inputs = x(&[1, 2], &[1.0, 1.0]);
    let with_default = session.run(&inputs, &mut Sink::new()).unwrap();
    inputs.push("bias", HostTensor::from_f32(&[2], &[0.0, 0.5]));
    let given = session.run(&inputs, &mut Sink::new()).unwrap();
    let sum = |outputs: &NamedTensors| outputs.get("sum").unwrap().to_f64s().unwrap();
    assert_eq!(sum(&with_default), [11.0, 21.0]);
    assert_eq!(sum(&given), [1.0, 1.5]);
}

#[test]
fn half_precision_and_booleans_pass_through() {
    use onnx_protobuf::{GraphProto, NodeProto};
    for (dtype, number, bytes) in [
        (DType::F16, 10, vec![0x00, 0x3c, 0x00, 0xc0]),
        (DType::BF16, 16, vec![0x80, 0x3f, 0x00, 0xc0]),
        (DType::Bool, 9, vec![1, 0]),
        (
            DType::I64,
            7,
            vec![1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        let value = |name: &str| {
            let mut value = models::float_value(name, &[Ok(2)]);
            value.type_.as_mut().unwrap().mut_tensor_type().elem_type = number;
            value
        };
        let identity = NodeProto {
            op_type: "Identity".into(),
            input: vec!["x".into()],
            output: vec!["y".into()],
            ..Default::default()
        };
        let bytes_of_model = models::model(GraphProto {
            name: "identity".into(),
            node: vec![identity],
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        });
        let mut session = open(&bytes_of_model, &Options::default()).unwrap();
        let given = HostTensor::new(dtype, &[2], bytes).unwrap();
        let inputs = NamedTensors(vec![("x".into(), given.clone())]);
        let outputs = session.run(&inputs, &mut Sink::new()).unwrap();
        assert_eq!(outputs.get("y"), Some(&given), "{dtype}");
    }
}
