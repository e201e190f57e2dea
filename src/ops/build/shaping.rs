//! Expressions that change shapes: reductions, reshapes, slices.

use super::{Expr, Refusal};
use crate::graph::Attribute;
use crate::ops::form;
use crate::ty::{Dim, Proof, Shape, TensorType};

/// Beyond every axis: a slice to the end.
pub const END: i64 = i64::MAX;

fn signed(axes: &[usize]) -> Vec<i64> {
    axes.iter().map(|axis| *axis as i64).collect()
}

impl<'b> Expr<'b> {
    // --- reductions -------------------------------------------------------------------------

    /// A reduction that leaves axes of size 1.
    pub fn reduce_keeping(self, op_type: &str, axes: &[usize]) -> Expr<'b> {
        self.reduce(op_type, axes, true)
    }

    fn reduce(self, op_type: &str, axes: &[usize], keep: bool) -> Expr<'b> {
        if axes.is_empty() {
            return self;
        }
        let form = form::reduce(self.builder.opset(), op_type, &signed(axes), keep);
        self.builder.formed(op_type, self, form)
    }

    /// The sum over the axes, which stay with size 1.
    pub fn sum_keeping(self, axes: &[usize]) -> Expr<'b> {
        self.reduce("ReduceSum", axes, true)
    }

    /// The sum over the axes, which go.
    pub fn sum_dropping(self, axes: &[usize]) -> Expr<'b> {
        self.reduce("ReduceSum", axes, false)
    }

    /// The mean over the axes, which stay with size 1.
    pub fn mean_keeping(self, axes: &[usize]) -> Expr<'b> {
        self.reduce("ReduceMean", axes, true)
    }

    // --- shapes -----------------------------------------------------------------------------

    /// The same elements in another shape. A size that is the operand's own is copied, one further
    /// size is left to be solved for: most targets are constants then, whatever is symbolic.
    pub fn reshape(self, dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
        let own = self.dims()?;
        if own == dims {
            return Ok(self);
        }
        let target = self.reshape_target(&own, dims)?;
        let result = self.typed("Reshape", &[self, target], Vec::new(), dims);
        Ok(result)
    }

    fn reshape_target(self, own: &[Dim], dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
        let copied =
            |axis: usize| dims[axis].known().is_none() && own.get(axis) == Some(&dims[axis]);
        let open: Vec<usize> = (0..dims.len())
            .filter(|axis| dims[*axis].known().is_none() && !copied(*axis))
            .collect();
        // The largest expression is the most work to compute: it is the one that is solved for.
        let rest = open.iter().copied().max_by_key(|axis| dims[*axis].size());
        let entries: Vec<Dim> = (0..dims.len())
            .map(|axis| match () {
                () if copied(axis) => Dim::from(0),
                () if rest == Some(axis) => Dim::from(-1),
                () => dims[axis].clone(),
            })
            .collect();
        self.builder.sizes(&entries)
    }

    /// Broadcast to larger sizes.
    pub fn expand(self, dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
        let own = self.dims()?;
        if own == dims {
            return Ok(self);
        }
        let lead = dims.len().saturating_sub(own.len());
        let entries: Vec<Dim> = dims
            .iter()
            .enumerate()
            .map(
                |(axis, dim)| match axis.checked_sub(lead).map(|at| &own[at]) {
                    // 1 leaves the operand's own size.
                    Some(size) if size == dim => Dim::from(1),
                    _ => dim.clone(),
                },
            )
            .collect();
        let target = self.builder.sizes(&entries)?;
        Ok(self.typed("Expand", &[self, target], Vec::new(), dims))
    }

    /// A node whose result is known to have these sizes.
    fn typed(
        self,
        op_type: &str,
        operands: &[Expr<'b>],
        attributes: Vec<Attribute>,
        dims: &[Dim],
    ) -> Expr<'b> {
        self.builder
            .node(op_type, operands, attributes)
            .stated(dims)
    }

    /// This new value, of which more is known than can be inferred: its sizes.
    pub fn stated(self, dims: &[Dim]) -> Expr<'b> {
        let ty = TensorType::new(self.dtype(), Shape(dims.to_vec()));
        self.builder
            .with_patch(|patch| patch.set_type_of_new(self.operand, ty));
        self
    }

    pub fn transpose(self, perm: &[usize]) -> Expr<'b> {
        if perm.iter().enumerate().all(|(at, axis)| at == *axis) {
            return self;
        }
        self.with("Transpose", vec![Attribute::ints("perm", signed(perm))])
    }

    /// The last two axes exchanged.
    pub fn transpose_last(self) -> Result<Expr<'b>, Refusal> {
        let rank = self.rank()?;
        let mut perm: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            perm.swap(rank - 2, rank - 1);
        }
        Ok(self.transpose(&perm))
    }

    /// Axes of size 1 at these places of the result.
    pub fn unsqueeze(self, axes: &[usize]) -> Expr<'b> {
        if axes.is_empty() {
            return self;
        }
        let form = form::squeeze(self.builder.opset(), &signed(axes));
        self.builder.formed("Unsqueeze", self, form)
    }

    /// Without these axes, which have size 1.
    pub fn squeeze(self, axes: &[usize]) -> Expr<'b> {
        if axes.is_empty() {
            return self;
        }
        let form = form::squeeze(self.builder.opset(), &signed(axes));
        self.builder.formed("Squeeze", self, form)
    }

    /// The part of one axis from `start` up to `end`.
    pub fn slice(self, axis: usize, start: i64, end: i64) -> Expr<'b> {
        let form = form::slice(self.builder.opset(), &[axis as i64], &[start], &[end]);
        self.builder.formed("Slice", self, form)
    }

    /// Zeros around: `before` and `behind` for every axis.
    pub fn pad(self, before: &[Dim], behind: &[Dim]) -> Result<Expr<'b>, Refusal> {
        let all = [before, behind].concat();
        if all
            .iter()
            .all(|dim| dim.compare(&Dim::from(0)) == Proof::Equal)
        {
            return Ok(self);
        }
        let numbers: Option<Vec<i64>> = all.iter().map(Dim::known).collect();
        if let Some(pads) = numbers {
            let form = form::pad(self.builder.opset(), &pads);
            return Ok(self.builder.formed("Pad", self, form));
        }
        let pads = self.builder.sizes(&all)?;
        let own = self.dims()?;
        let padded: Vec<Dim> = own
            .into_iter()
            .zip(before.iter().zip(behind))
            .map(|(size, (before, behind))| size + before.clone() + behind.clone())
            .collect();
        Ok(self.typed("Pad", &[self, pads], Vec::new(), &padded))
    }
}

/// The most parts that ONNX Runtime joins or splits while it records a CUDA graph: more of them make it
/// copy a table from the host.
const MOST_PARTS: usize = 32;

impl super::Builder<'_> {
    /// Joined along one axis; many parts in groups.
    pub fn concat<'b>(&'b self, parts: &[Expr<'b>], axis: usize) -> Expr<'b> {
        match parts {
            [one] => *one,
            many if many.len() > MOST_PARTS => {
                let groups = many.chunks(many.len().div_ceil(MOST_PARTS));
                let joined: Vec<Expr<'b>> = groups.map(|group| self.concat(group, axis)).collect();
                self.concat(&joined, axis)
            }
            _ => self.node("Concat", parts, vec![Attribute::int("axis", axis as i64)]),
        }
    }

    /// A vector in parts of these lengths; many parts by way of groups.
    pub fn split<'b>(&'b self, vector: Expr<'b>, lengths: &[i64]) -> Vec<Expr<'b>> {
        if lengths.len() == 1 {
            return vec![vector];
        }
        if lengths.len() > MOST_PARTS {
            let groups: Vec<&[i64]> = lengths.chunks(lengths.len().div_ceil(MOST_PARTS)).collect();
            let sums: Vec<i64> = groups.iter().map(|group| group.iter().sum()).collect();
            let parts = self.split(vector, &sums).into_iter().zip(groups);
            return parts
                .flat_map(|(part, group)| self.split(part, group))
                .collect();
        }
        let form = form::split(self.opset(), lengths);
        let mut operands = vec![Some(vector.operand)];
        operands.extend(form.lists.iter().map(|list| Some(self.ints(list).operand)));
        self.nodes("", "Split", operands, form.attributes, lengths.len())
    }

    /// Zeros in a shape.
    pub fn zeros(&self, ty: crate::ty::DType, dims: &[Dim]) -> Result<Expr<'_>, Refusal> {
        self.scalar(0.0, ty).expand(dims)
    }
}
