use super::*;
use crate::diag::Code;

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn safetensors_come_back_as_they_went() {
    let mut tensors = NamedTensors::default();
    tensors.push("b", HostTensor::from_i64(&[2], &[7, -7]));
    tensors.push("a", HostTensor::from_f32(&[1, 2], &[0.5, -0.5]));
    tensors.push("none", HostTensor::from_f32(&[0, 3], &[]));
    tensors.push("scalar", HostTensor::from_f32(&[], &[1.0]));
    let bytes = tensors.to_safetensors().unwrap();
    assert_eq!(bytes, tensors.to_safetensors().unwrap());
    let back = NamedTensors::read_safetensors(write(&bytes).path()).unwrap();
    assert_eq!(back.0.len(), 4);
    for (name, tensor) in tensors.iter() {
        assert_eq!(back.get(name), Some(tensor), "{name}");
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    assert!(HostTensor::new(DType::F32, &[2], vec![0; 7]).is_none());
    assert!(HostTensor::new(DType::F32, &[-1], vec![]).is_none());
    assert!(HostTensor::new(DType::F32, &[i64::MAX, i64::MAX], vec![]).is_none());
    assert!(HostTensor::new(DType::String, &[0], vec![]).is_none());
}

#[test]
fn a_file_that_is_no_safetensors_has_a_code() {
    for bytes in [&b""[..], b"{}", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
        let error = NamedTensors::read_safetensors(write(bytes).path()).unwrap_err();
        assert_eq!(error.code, Code::E0901, "{bytes:?}");
    }
    let error = NamedTensors::read_safetensors(Path::new("/nowhere/x.safetensors")).unwrap_err();
    assert_eq!(error.code, Code::E0001);
}

#[test]
fn half_precision_is_widened() {
    let one = HostTensor::new(DType::F16, &[1], vec![0x00, 0x3c]).unwrap();
    assert_eq!(one.to_f64s(), Some(vec![1.0]));
    let two = HostTensor::new(DType::BF16, &[1], vec![0x00, 0x40]).unwrap();
    assert_eq!(two.to_f64s(), Some(vec![2.0]));
}
