//! Sizes as values: numbers as constants, symbols read from the shapes of the graph's inputs.

use super::{Builder, Expr, Refusal, refuse};
use crate::graph::{Attribute, Graph, ValueId, ValueKind};
use crate::ty::{DType, Dim, DimAlgebra, DimOp, Symbol};
use rustc_hash::FxHashMap;

/// Where every symbol can be read. Inputs come first; a size that no input has is read from the
/// first value that has it, integers before floats, because a float may be a large activation.
pub(super) fn sources(graph: &Graph) -> FxHashMap<Symbol, (ValueId, usize)> {
    let mut found = FxHashMap::default();
    let mut add = |id: ValueId| {
        let shape = graph.value(id).ty.as_ref().and_then(|ty| ty.shape.as_ref());
        for (axis, dim) in shape.iter().flat_map(|shape| shape.0.iter().enumerate()) {
            if let Some(symbol) = dim.as_symbol() {
                found.entry(symbol.clone()).or_insert((id, axis));
            }
        }
    };
    let is_input = |id: &ValueId| matches!(graph.value(*id).kind, ValueKind::Input { .. });
    let is_float = |id: &ValueId| {
        let ty = graph.value(*id).ty.as_ref();
        ty.is_none_or(|ty| ty.dtype.is_float())
    };
    graph.inputs().iter().copied().for_each(&mut add);
    let (floats, others): (Vec<ValueId>, Vec<ValueId>) = graph
        .value_ids()
        .filter(|id| !is_input(id))
        .partition(is_float);
    others.into_iter().chain(floats).for_each(&mut add);
    found
}

impl Builder<'_> {
    /// A size as a vector of one integer.
    pub fn size(&self, dim: &Dim) -> Result<Expr<'_>, Refusal> {
        if let Some(operand) = self.state.borrow().sizes.get(dim) {
            return Ok(self.expr(*operand));
        }
        let Some(size) = dim.compute(&mut Emission(self)) else {
            return refuse!("the size {dim} cannot be told from the model's inputs");
        };
        self.state
            .borrow_mut()
            .sizes
            .insert(dim.clone(), size.operand);
        Ok(size)
    }

    /// Lets a size be told by a vector of one integer: for a symbol that no value of the graph has
    /// yet.
    pub fn tell_size(&self, dim: &Dim, size: Expr<'_>) {
        let mut state = self.state.borrow_mut();
        state.sizes.insert(dim.clone(), size.operand);
    }

    /// Sizes as a vector of integers.
    pub fn sizes(&self, dims: &[Dim]) -> Result<Expr<'_>, Refusal> {
        let mut parts: Vec<Expr<'_>> = Vec::new();
        let mut numbers: Vec<i64> = Vec::new();
        for dim in dims {
            if let Some(number) = dim.known() {
                numbers.push(number);
                continue;
            }
            if !numbers.is_empty() {
                parts.push(self.ints(&std::mem::take(&mut numbers)));
            }
            parts.push(self.size(dim)?);
        }
        if !numbers.is_empty() || parts.is_empty() {
            parts.push(self.ints(&numbers));
        }
        Ok(match parts.as_slice() {
            [one] => *one,
            _ => self.node("Concat", &parts, vec![Attribute::int("axis", 0)]),
        })
    }

    /// `0, 1, …` below a size, as a vector.
    pub fn count(&self, dim: &Dim) -> Result<Expr<'_>, Refusal> {
        if let Some(size) = dim.known().filter(|size| *size <= 1024) {
            return Ok(self.ints(&(0..size).collect::<Vec<i64>>()));
        }
        let end = self.size(dim)?.squeeze(&[0]);
        let (start, step) = (self.scalar(0.0, DType::I64), self.scalar(1.0, DType::I64));
        let all = self.node("Range", &[start, end, step], Vec::new());
        Ok(all.stated(std::slice::from_ref(dim)))
    }

    fn size_of_symbol(&self, symbol: &Symbol) -> Option<Expr<'_>> {
        let (value, axis) = *self.sources.get(symbol)?;
        let axis = axis as i64;
        let value_expr = self.expr(value);
        if self.opset >= 15 {
            let range = vec![
                Attribute::int("start", axis),
                Attribute::int("end", axis + 1),
            ];
            return Some(self.node("Shape", &[value_expr], range));
        }
        let known = self.state.borrow().shapes.get(&value).copied();
        let shape = match known {
            Some(shape) => self.expr(shape),
            None => {
                let shape = self.node("Shape", &[value_expr], Vec::new());
                self.state.borrow_mut().shapes.insert(value, shape.operand);
                shape
            }
        };
        Some(self.node("Gather", &[shape, self.ints(&[axis])], Vec::new()))
    }
}

/// Computes a dimension with nodes.
struct Emission<'b>(&'b Builder<'b>);

impl<'b> DimAlgebra for Emission<'b> {
    type Value = Expr<'b>;

    fn number(&mut self, value: i64) -> Expr<'b> {
        self.0.ints(&[value])
    }

    fn symbol(&mut self, symbol: &Symbol) -> Option<Expr<'b>> {
        let dim = Dim::symbol(symbol.name());
        let done = self.0.state.borrow().sizes.get(&dim).copied();
        if let Some(operand) = done {
            return Some(self.0.expr(operand));
        }
        let size = self.0.size_of_symbol(symbol)?;
        self.0.state.borrow_mut().sizes.insert(dim, size.operand);
        Some(size)
    }

    fn combine(&mut self, op: DimOp, a: Expr<'b>, b: Expr<'b>) -> Expr<'b> {
        let op_type = match op {
            DimOp::Add => "Add",
            DimOp::Mul => "Mul",
            DimOp::Div => "Div",
            DimOp::Min => "Min",
            DimOp::Max => "Max",
        };
        self.0.node(op_type, &[a, b], Vec::new())
    }
}
