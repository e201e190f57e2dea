//! The operator of attention and of its gradients.

use super::{Pool, guarded};
use crate::kernels::attention::{
    Attention as Sized, FORM, Form, Given, Gradient, Gradients, Keys, OPERATOR, OperandSizes,
    Operands,
};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::{DynTensorValueType, TensorElementType, ValueRef, ValueRefMut};

pub(super) struct Attention;

impl Operator for Attention {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &str {
        OPERATOR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::variadic(3).homogenous(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::variadic(1).homogenous(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, cx: &KernelContext<'attr>) -> ort::Result<AttentionKernel> {
        let numbers: Option<Vec<i64>> = cx.get(FORM);
        let form = numbers.and_then(|numbers| Form::decode(&numbers));
        match form {
            Some(form) => Ok(AttentionKernel { form, last: None }),
            None => Err(ort::Error::new("the node has no form that can be read")),
        }
    }
}

pub(super) struct AttentionKernel {
    form: Form,
    /// Of the run before: sizes seldom change.
    last: Option<(OperandSizes, Sized)>,
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, cx: &ComputeContext) -> ort::Result<()> {
        guarded(|| self.try_compute(cx))
    }
}

impl AttentionKernel {
    fn try_compute(&mut self, cx: &ComputeContext) -> ort::Result<()> {
        let form = &self.form;
        if cx.num_inputs()? != form.operands() {
            return Err(ort::Error::new("it has other operands than its form"));
        }
        let mut values = Vec::with_capacity(form.operands());
        for slot in 0..form.operands() {
            let value = cx.input(slot)?;
            let value = value.ok_or_else(|| ort::Error::new("an operand is absent"))?;
            values.push(value);
        }
        let mut read = values.iter().map(floats);
        let mut next = || {
            read.next()
                .unwrap_or_else(|| Err(ort::Error::new("an operand is absent")))
        };
        let [(queries, of_queries), (keys, of_keys), (of, of_values)] = [next()?, next()?, next()?];
        let mask = form.has_mask.then(&mut next).transpose()?;
        let sizes = OperandSizes {
            queries: of_queries,
            keys: of_keys,
            values: of_values,
            mask: mask.as_ref().map(|(_, dims)| dims.clone()),
        };
        if self
            .last
            .as_ref()
            .is_none_or(|(planned, _)| *planned != sizes)
        {
            let sized = Sized::new(form, &sizes).map_err(ort::Error::new)?;
            self.last = Some((sizes, sized));
        }
        let Some((_, attention)) = &self.last else {
            return Ok(());
        };
        let operands = Operands {
            queries,
            keys,
            values: of,
            mask: mask.map(|(mask, _)| mask),
        };
        if form.gradients.is_empty() {
            let mut result = output(cx, 0, &attention.result())?;
            let (_, result) = result.try_extract_tensor_mut::<f32>()?;
            return attention
                .forward(&operands, result, &Pool(cx))
                .map_err(ort::Error::new);
        }
        let given = Given {
            result: next()?.0,
            inner: form
                .has_inner
                .then(&mut next)
                .transpose()?
                .map(|(inner, _)| inner),
        };
        let mut outputs = Vec::with_capacity(form.gradients.len());
        for (slot, gradient) in form.gradients.iter().enumerate() {
            let keys = match gradient {
                Gradient::Keys(keys) => *keys,
                _ => Keys::Rows,
            };
            let [of_queries, of_keys, of_values] = attention.gradients(keys);
            let dims = match gradient {
                Gradient::Queries => of_queries,
                Gradient::Keys(_) => of_keys,
                Gradient::Values => of_values,
            };
            outputs.push(output(cx, slot, &dims)?);
        }
        let mut into = Gradients {
            queries: None,
            keys: None,
            values: None,
        };
        for (output, gradient) in outputs.iter_mut().zip(&form.gradients) {
            let (_, output) = output.try_extract_tensor_mut::<f32>()?;
            match gradient {
                Gradient::Queries => into.queries = Some(output),
                Gradient::Keys(keys) => into.keys = Some((*keys, output)),
                Gradient::Values => into.values = Some(output),
            }
        }
        attention
            .backward(&operands, &given, into, &Pool(cx))
            .map_err(ort::Error::new)
    }
}

/// The elements of an operand, and its sizes.
fn floats<'v>(value: &'v ValueRef<'_>) -> ort::Result<(&'v [f32], Vec<usize>)> {
    let (shape, elements) = value.try_extract_tensor::<f32>()?;
    Ok((elements, shape.iter().map(|size| *size as usize).collect()))
}

fn output<'c>(
    cx: &'c ComputeContext,
    slot: usize,
    dims: &[usize],
) -> ort::Result<ValueRefMut<'c, DynTensorValueType>> {
    let dims: Vec<i64> = dims.iter().map(|size| *size as i64).collect();
    let value = cx.output(slot, dims)?;
    let value = value.ok_or_else(|| ort::Error::new("a result is absent"))?;
    value.downcast::<DynTensorValueType>()
}
