//! The new weight and bias of one node, from the formulas of its modules.

use super::super::initial::WeightReader;
use super::super::numeric::Dense;
use super::super::plan::{Plan, PlannedSite};
use super::super::refusal::excerpt;
use super::super::rowwise::{Constants, Layer, Rows};
use super::super::stored::constant;
use super::super::{apply, errors, rows};
use super::place::Unit;
use crate::diag::{Diagnostic, Reported, Sink};
use crate::graph::{Model, Tensor, ValueId, decode_floats};
use crate::modules::{Layout, Modules, Scope, Site, SiteKind};
use crate::ops::encode_float;
use crate::ty::DType;
use std::collections::BTreeMap;

/// At most so many elements of a block of rows, over the widest side of the weight.
const BLOCK: usize = 1 << 18;
/// How far the check row may be off, relative to its largest element: rounding in f64.
const CHECK: f64 = 1e-8;

/// What a node reads from now on.
pub(super) struct New {
    /// In the layout in which the model stores it.
    pub weight: Vec<f64>,
    pub dtype: DType,
    /// Whether the weight is another one at all.
    pub is_changed: bool,
    /// What is added to the node's output features beyond its own bias; `None` if that is nothing.
    pub bias: Option<Bias>,
    pub change: f64,
}

pub(super) struct Bias {
    /// The bias itself, if the module has one.
    pub whole: Option<Vec<f64>>,
    /// The change, over all output features of the node.
    pub added: Vec<f64>,
}

/// A node's weight and bias in f64, those of other members included.
pub(super) struct Merged {
    pub grid: Grid,
    /// In the layout in which the model stores it.
    pub stored: Vec<f64>,
    pub weight: Vec<f64>,
    dtype: DType,
    bias: Option<Vec<f64>>,
    /// What is added to the output features beyond the own bias.
    pub added: Vec<f64>,
}

pub(super) struct Merging<'a> {
    pub plan: &'a Plan,
    pub model: &'a Model,
    pub modules: &'a Modules,
    pub values: &'a BTreeMap<String, Tensor>,
    pub weights: &'a WeightReader<'a>,
}

impl Merging<'_> {
    pub fn unit(&self, unit: &Unit<'_>, sink: &mut Sink) -> Result<New, Reported> {
        let Merged {
            stored,
            weight,
            dtype,
            bias,
            added,
            ..
        } = self.merged(unit, sink)?;
        let rounds = |value: f64| decode_floats(dtype, &encode_float(value, dtype));
        let fits = |value: &f64| rounds(*value).is_some_and(|v| v.iter().all(|v| v.is_finite()));
        if !weight.iter().all(fits) {
            return self.fail(unit, &format!("a merged number is no finite {dtype}"), sink);
        }
        Ok(New {
            is_changed: weight != stored,
            change: change(&stored, &weight),
            bias: shifted(bias, added),
            weight,
            dtype,
        })
    }

    /// The weight of a node before and after, before it is rounded.
    pub fn merged(&self, unit: &Unit<'_>, sink: &mut Sink) -> Result<Merged, Reported> {
        let site = unit.site(self.modules);
        let Some(tensor) = constant(self.model, &site.weight.scope, site.weight.value) else {
            return self.fail(unit, "it is not a constant", sink);
        };
        let dtype = tensor.dtype;
        let bytes = (self.weights)(tensor, sink)?;
        let Some(stored) = decode_floats(dtype, &bytes) else {
            return self.fail(unit, &format!("its type is {dtype}"), sink);
        };
        if stored.iter().any(|value| !value.is_finite()) {
            return self.fail(unit, "it has numbers that are not finite", sink);
        }
        let grid = Grid::new(self.model, site, stored.len());
        let bias = self.bias(site, sink)?;
        let mut weight = stored.clone();
        let mut added = vec![0.0; grid.outputs];
        for planned in &unit.sites {
            let part = self.part(planned, &grid, &stored, bias.as_deref());
            let done = part.and_then(|part| self.rows(planned, &part, &grid, &mut weight));
            match done {
                Ok(shift) => {
                    let start = grid.range(planned, self.modules).start;
                    added[start..start + shift.len()].copy_from_slice(&shift);
                }
                Err(why) => return self.fail(unit, &why, sink),
            }
        }
        Ok(Merged {
            grid,
            stored,
            weight,
            dtype,
            bias,
            added,
        })
    }

    pub fn fail<T>(&self, unit: &Unit<'_>, why: &str, sink: &mut Sink) -> Result<T, Reported> {
        let site = unit.site(self.modules);
        Err(sink.emit(self.refused(unit.sites[0], site, why)))
    }

    fn refused(&self, planned: &PlannedSite, site: &Site, why: &str) -> Diagnostic {
        let span = planned.methods.first().map(|method| method.span);
        let span = span.unwrap_or(self.plan.statements[planned.statement].span);
        errors::cannot_merge_into(span, &site.path, why).excerpt(excerpt(self.model, site))
    }

    /// The bias of the whole node, in f64.
    fn bias(&self, site: &Site, sink: &mut Sink) -> Result<Option<Vec<f64>>, Reported> {
        let Some(tensor) = site.bias.and_then(|bias| of(self.model, &site.scope, bias)) else {
            return Ok(None);
        };
        let bytes = (self.weights)(tensor, sink)?;
        Ok(decode_floats(tensor.dtype, &bytes))
    }

    /// The base module of a planned site in numbers.
    fn part(
        &self,
        planned: &PlannedSite,
        grid: &Grid,
        stored: &[f64],
        bias: Option<&[f64]>,
    ) -> Result<Layer, String> {
        let range = grid.range(planned, self.modules);
        let (rows, columns) = (range.len(), grid.inputs);
        let of = |o: usize, i: usize| stored[grid.at(o, i)];
        let (dims, data): (Vec<usize>, Vec<f64>) = match grid.kind {
            SiteKind::Norm => (vec![rows], stored.to_vec()),
            SiteKind::Embedding => (
                vec![columns, rows],
                (0..columns)
                    .flat_map(|i| range.clone().map(move |o| (o, i)))
                    .map(|(o, i)| of(o, i))
                    .collect(),
            ),
            _ => (
                vec![rows, columns],
                range
                    .clone()
                    .flat_map(|o| (0..columns).map(move |i| (o, i)))
                    .map(|(o, i)| of(o, i))
                    .collect(),
            ),
        };
        let bias = match bias {
            // A bias of the member alone, or of the whole node.
            Some(bias) if bias.len() == rows => Some(bias.to_vec()),
            Some(bias) => Some(bias.get(range).ok_or("its bias has another size")?.to_vec()),
            None => None,
        };
        let dense = |data: Vec<f64>| Dense {
            dims: vec![data.len()],
            data,
        };
        Ok(Layer {
            kind: grid.kind,
            weight: Dense { dims, data },
            bias: bias.map(dense),
            groups: grid.groups,
        })
    }

    /// Fills in the rows of one planned site; answers with what its bias changes by.
    fn rows(
        &self,
        planned: &PlannedSite,
        layer: &Layer,
        grid: &Grid,
        weight: &mut [f64],
    ) -> Result<Vec<f64>, String> {
        let chain = Chain::new(self, planned, layer)?;
        let zero = chain.on(&Rows::Dense(grid.zeros()))?.data;
        let start = grid.range(planned, self.modules).start;
        let own = vec![0.0; zero.len()];
        let own = layer.bias.as_ref().map_or(&own, |bias| &bias.data);
        let mut sums = zero.clone();
        let probe = grid.probe();
        // An embedding has no bias, and every id reads one row: what is for zero goes into the rows.
        let origin = match grid.kind {
            SiteKind::Embedding => vec![0.0; zero.len()],
            _ => zero.clone(),
        };
        let mut fill = |i: usize, row: &[f64]| {
            for (o, value) in row.iter().enumerate() {
                weight[grid.at(start + o, i)] = value - origin[o];
                sums[o] += probe.of(i, o, layer) * (value - zero[o]);
            }
        };
        match grid.kind {
            SiteKind::Norm => {
                // One row of ones has every weight: nothing mixes features, as the check confirms.
                let ones = Dense {
                    dims: vec![1, grid.outputs],
                    data: vec![1.0; grid.outputs],
                };
                fill(0, &chain.on(&Rows::Dense(ones))?.data);
            }
            _ => {
                let size = (BLOCK / grid.inputs.max(zero.len()).max(1)).clamp(1, 1024);
                for first in (0..grid.inputs).step_by(size) {
                    let block = first..(first + size).min(grid.inputs);
                    let found = chain.on(&grid.unit_rows(block.clone()))?;
                    let width = zero.len().max(1);
                    for (i, row) in block.zip(found.data.chunks(width)) {
                        fill(i, row);
                    }
                }
            }
        }
        let found = chain.on(&Rows::Dense(probe.rows()))?.data;
        let scale = found
            .iter()
            .chain(&sums)
            .fold(1.0_f64, |m, v| m.max(v.abs()));
        if found
            .iter()
            .zip(&sums)
            .any(|(a, b)| (a - b).abs() > CHECK * scale)
        {
            return Err("what the method adds is no change of weight and bias".to_owned());
        }
        if grid.kind == SiteKind::Embedding {
            return Ok(vec![0.0; zero.len()]);
        }
        Ok(zero.iter().zip(own).map(|(new, old)| new - old).collect())
    }
}

/// The methods of a site, one on the result of the other.
struct Chain<'a> {
    layer: &'a Layer,
    methods: Vec<Constants<'a>>,
}

impl<'a> Chain<'a> {
    fn new(
        merging: &Merging<'_>,
        planned: &'a PlannedSite,
        layer: &'a Layer,
    ) -> Result<Chain<'a>, String> {
        let mut methods = Vec::new();
        for method in &planned.methods {
            let parameters = method.parameters.iter().map(|index| {
                let name = &merging.plan.parameters[*index].name;
                let tensor = merging.values.get(name);
                let data = tensor.and_then(Tensor::to_f64s);
                data.zip(tensor).map(|(data, tensor)| Dense {
                    dims: tensor.dims.iter().map(|d| *d as usize).collect(),
                    data,
                })
            });
            let parameters = parameters.collect::<Option<Vec<Dense>>>();
            let parameters = parameters.ok_or("a tensor of the adapter is missing")?;
            methods.push(Constants::new(
                &method.instance.forward,
                layer,
                &parameters,
            )?);
        }
        Ok(Chain { layer, methods })
    }

    fn on(&self, input: &Rows) -> Result<Dense, String> {
        let mut output = self.layer.output(input);
        for method in &self.methods {
            output = method.rows(self.layer, input, output)?;
        }
        Ok(output)
    }
}

/// Where the cells of a weight lie in its tensor.
pub(super) struct Grid {
    pub kind: SiteKind,
    /// Output features of the node, those of other members included.
    pub outputs: usize,
    /// Columns, or rows of an embedding; 1 at a norm.
    pub inputs: usize,
    pub groups: usize,
    /// Whether the features of an output lie side by side.
    by_output: bool,
}

impl Grid {
    fn new(model: &Model, site: &Site, elements: usize) -> Grid {
        let inputs = match site.kind {
            SiteKind::Norm => 1,
            _ => rows::columns(model, site).max(1) as usize,
        };
        let groups = match site.kind {
            SiteKind::Conv => apply::graph_at(model, &site.scope)
                .node(site.node)
                .int("group")
                .unwrap_or(1),
            _ => 1,
        };
        let out_in = site.weight.stored != Layout::InOut;
        Grid {
            kind: site.kind,
            outputs: elements / inputs,
            inputs,
            groups: groups.max(1) as usize,
            // An embedding's table has its inputs first where a linear weight has its outputs.
            by_output: out_in != (site.kind == SiteKind::Embedding),
        }
    }

    pub fn at(&self, output: usize, input: usize) -> usize {
        if self.by_output {
            output * self.inputs + input
        } else {
            input * self.outputs + output
        }
    }

    pub fn range(&self, planned: &PlannedSite, modules: &Modules) -> std::ops::Range<usize> {
        let range = apply::range_of(planned, &modules.sites[planned.site]);
        range.map_or(0..self.outputs, |r| r.start as usize..r.end as usize)
    }

    /// Features of a row of input.
    fn width(&self) -> usize {
        match self.kind {
            SiteKind::Norm => self.outputs,
            _ => self.inputs * self.groups,
        }
    }

    fn zeros(&self) -> Dense {
        Dense {
            dims: vec![1, self.width()],
            data: vec![0.0; self.width()],
        }
    }

    /// Rows of the identity; every group of a convolution has the same patch.
    fn unit_rows(&self, range: std::ops::Range<usize>) -> Rows {
        if self.groups == 1 {
            return Rows::Unit(range, self.inputs);
        }
        let width = self.width();
        let mut data = vec![0.0; range.len() * width];
        for (row, column) in range.clone().enumerate() {
            for group in 0..self.groups {
                data[row * width + group * self.inputs + column] = 1.0;
            }
        }
        Rows::Dense(Dense {
            dims: vec![range.len(), width],
            data,
        })
    }

    fn probe(&self) -> Probe {
        // Numbers without a pattern that any of the axes has.
        let of = |index: usize| ((index * 7919 + 13) % 1009) as f64 / 1009.0 - 0.5;
        Probe {
            data: (0..self.width()).map(of).collect(),
            inputs: self.inputs,
            groups: self.groups,
            is_norm: self.kind == SiteKind::Norm,
        }
    }
}

/// One more row of input: the check on a merge.
struct Probe {
    data: Vec<f64>,
    inputs: usize,
    groups: usize,
    is_norm: bool,
}

impl Probe {
    /// What output feature `o` reads in column `i`.
    fn of(&self, i: usize, o: usize, layer: &Layer) -> f64 {
        if self.is_norm {
            return self.data[o];
        }
        let per_group = (layer.outputs() / self.groups).max(1);
        self.data[o / per_group * self.inputs + i]
    }

    fn rows(&self) -> Dense {
        Dense {
            dims: vec![1, self.data.len()],
            data: self.data.clone(),
        }
    }
}

/// The constant behind a bias, which may be captured.
fn of<'m>(model: &'m Model, scope: &Scope, value: ValueId) -> Option<&'m Tensor> {
    constant(model, scope, value)
}

fn shifted(own: Option<Vec<f64>>, added: Vec<f64>) -> Option<Bias> {
    if added.iter().all(|value| *value == 0.0) {
        return None;
    }
    let whole = own.filter(|own| own.len() == added.len()).map(|own| {
        let sums = own.iter().zip(&added);
        sums.map(|(own, added)| own + added).collect()
    });
    Some(Bias { whole, added })
}

fn change(old: &[f64], new: &[f64]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = length(&mut old.iter().zip(new).map(|(a, b)| a - b));
    let whole = length(&mut old.iter().copied());
    if difference == 0.0 {
        0.0
    } else {
        difference / whole
    }
}
