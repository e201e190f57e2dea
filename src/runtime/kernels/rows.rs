//! The operator that runs a program.
#![allow(unsafe_code)]

use super::{Pool, guarded};
use crate::kernels::{Kind, OPERATOR, PROGRAM, Plan, Program, Run, Source, Target};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::{DynTensorValueType, TensorElementType, ValueRef};

/// An operator with any number of operands and results, all of them tensors.
pub(super) struct Rows;

impl Operator for Rows {
    type Kernel<'attr> = RowsKernel;

    // Whoever writes the node lists first what may be overwritten; ONNX Runtime decides whether it
    // is read afterwards.
    const INPLACES: &[(u32, u32)] = &[(0, 0), (1, 1), (2, 2)];

    fn name(&self) -> &str {
        OPERATOR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::variadic(1)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, cx: &KernelContext<'attr>) -> ort::Result<RowsKernel> {
        let numbers: Option<Vec<i64>> = cx.get(PROGRAM);
        let program = numbers.and_then(|numbers| Program::decode(&numbers));
        match program {
            Some(program) => Ok(RowsKernel {
                program,
                last: None,
            }),
            None => Err(ort::Error::new("the node has no program that can be read")),
        }
    }
}

pub(super) struct RowsKernel {
    program: Program,
    /// Of the run before: sizes seldom change.
    last: Option<(Vec<Vec<usize>>, Plan)>,
}

impl Kernel for RowsKernel {
    fn compute(&mut self, cx: &ComputeContext) -> ort::Result<()> {
        guarded(|| self.try_compute(cx))
    }
}

impl RowsKernel {
    fn try_compute(&mut self, cx: &ComputeContext) -> ort::Result<()> {
        let count = self.program.inputs.len();
        if cx.num_inputs()? != count {
            return Err(ort::Error::new("it has other operands than its program"));
        }
        let mut sources = Vec::with_capacity(count);
        let mut sizes = Vec::with_capacity(count);
        for slot in 0..count {
            let value = cx.input(slot)?;
            let value = value.ok_or_else(|| ort::Error::new("an operand is absent"))?;
            let (source, dims) = source(&value)?;
            sources.push(source);
            sizes.push(dims);
        }
        if self
            .last
            .as_ref()
            .is_none_or(|(planned, _)| *planned != sizes)
        {
            let plan = Plan::new(&self.program, &sizes).map_err(ort::Error::new)?;
            self.last = Some((sizes, plan));
        }
        let Some((_, plan)) = &self.last else {
            return Ok(());
        };
        let mut values = Vec::with_capacity(plan.outputs().len());
        for (slot, dims) in plan.outputs().iter().enumerate() {
            let dims: Vec<i64> = dims.iter().map(|size| *size as i64).collect();
            let value = cx.output(slot, dims)?;
            values.push(value.ok_or_else(|| ort::Error::new("a result is absent"))?);
        }
        let mut targets = Vec::with_capacity(values.len());
        for (value, dims) in values.iter().zip(plan.outputs()) {
            let tensor = value.view().downcast::<DynTensorValueType>()?;
            let start = tensor.data_ptr().cast::<f32>().cast_mut();
            // SAFETY: ONNX Runtime has just made the result, of floats and in these sizes, for the
            // kernel to write.
            targets.push(unsafe { Target::new(start, dims.iter().product()) });
        }
        let run = Run::new(&self.program, plan, &sources, &targets).map_err(ort::Error::new)?;
        // SAFETY: the pool asks for every task once.
        Pool(cx).run(plan.tasks(), &|task| unsafe { run.task(task) })
    }
}

/// An operand where it lies, and its sizes. It lives as long as the kernel runs.
fn source<'c>(value: &ValueRef<'c>) -> ort::Result<(Source<'c>, Vec<usize>)> {
    let tensor = value.view().downcast::<DynTensorValueType>()?;
    let kind = match tensor.data_type() {
        TensorElementType::Float32 => Kind::F32,
        TensorElementType::Bool => Kind::Bool,
        TensorElementType::Int64 => Kind::I64,
        _ => {
            return Err(ort::Error::new(
                "an operand has a type that no program reads",
            ));
        }
    };
    let dims: Vec<usize> = tensor.shape().iter().map(|size| *size as usize).collect();
    let start = tensor.data_ptr().cast::<u8>();
    // SAFETY: ONNX Runtime holds operands while a kernel runs, aligned and in these sizes; of those
    // that it lets results overwrite, the run takes care.
    let source = unsafe { Source::new(kind, start, dims.iter().product()) };
    Ok((source, dims))
}
