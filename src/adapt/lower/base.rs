//! The base module once more, on another input or with another weight or bias.

use super::Lowering;
use crate::graph::Operand;
use crate::hir::TermId;
use crate::modules::{Layout, SiteKind};

/// What becomes of the bias that a node adds when the node is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnBias {
    Kept,
    /// Left out: another one is added behind the copy.
    Left,
}

impl Lowering<'_> {
    /// The base module again, with another input, weight or bias.
    pub(super) fn base(
        &mut self,
        input: TermId,
        weight: Option<TermId>,
        bias: Option<TermId>,
    ) -> Operand {
        let input = self.value(input);
        let weight = weight.map(|id| self.value(id));
        let bias = bias.map(|id| self.value(id));
        match self.site().kind {
            SiteKind::Linear => self.linear(input, weight, bias),
            SiteKind::Norm => self.clone_node(input, weight, bias),
            SiteKind::Embedding => match weight {
                Some(weight) => self.emitter.node("Gather", &[weight, input], Vec::new()),
                None => {
                    let table = Operand::Existing(self.site().weight.operand);
                    let rows = self.emitter.node("Gather", &[table, input], Vec::new());
                    self.sliced(rows)
                }
            },
            SiteKind::Cache => unreachable!("a cache computes nothing"),
            SiteKind::Conv => {
                let weight = weight.map(|matrix| self.as_kernel(matrix, self.site().out_features));
                let result = self.clone_node(input, weight, bias);
                self.features_last(result)
            }
        }
    }

    pub(super) fn linear(
        &mut self,
        input: Operand,
        weight: Option<Operand>,
        bias: Option<Operand>,
    ) -> Operand {
        if weight.is_none() && self.site().weight.quantization.is_some() {
            return self.quantized(input, bias);
        }
        let transposed = match (weight, self.site().weight.layout) {
            (None, Layout::InOut) => {
                let weight = Operand::Existing(self.site().weight.operand);
                match self.bindings.slice {
                    Some((start, end)) => self.emitter.slice(weight, 1, start, end),
                    None => weight,
                }
            }
            (None, _) => {
                let weight = self.weight();
                self.transpose(weight)
            }
            (Some(weight), _) => self.transpose(weight),
        };
        let product = self
            .emitter
            .node("MatMul", &[input, transposed], Vec::new());
        self.add_bias(product, bias, false)
    }

    /// The site's node on another input, with another bias if there is one.
    fn quantized(&mut self, input: Operand, bias: Option<Operand>) -> Operand {
        let inside = self.bias_inside();
        let own = match bias {
            Some(_) if inside => OwnBias::Left,
            _ => OwnBias::Kept,
        };
        let product = self.clone_with(input, None, None, own);
        let product = self.sliced(product);
        self.add_bias(product, bias, inside)
    }

    /// Whether the site's own node adds the bias.
    fn bias_inside(&self) -> bool {
        let bias = self.site().bias;
        bias.is_some() && self.graph().operands(self.site().node).contains(&bias)
    }

    fn add_bias(&mut self, product: Operand, bias: Option<Operand>, inside: bool) -> Operand {
        let bias = match (bias, self.site().bias) {
            (Some(bias), _) => bias,
            (None, Some(_)) if !inside => self.bias(),
            _ => return product,
        };
        self.emitter.node("Add", &[product, bias], Vec::new())
    }

    /// The site's node with operands exchanged: its first one is the input.
    fn clone_node(
        &mut self,
        input: Operand,
        weight: Option<Operand>,
        bias: Option<Operand>,
    ) -> Operand {
        self.clone_with(input, weight, bias, OwnBias::Kept)
    }

    fn clone_with(
        &mut self,
        input: Operand,
        weight: Option<Operand>,
        bias: Option<Operand>,
        own: OwnBias,
    ) -> Operand {
        let node = self.graph().node(self.site().node);
        let mut bias_done = bias.is_none();
        let mut operands: Vec<Option<Operand>> = Vec::new();
        let own_input = Operand::Existing(self.site().input);
        for (slot, operand) in self
            .graph()
            .operands(self.site().node)
            .into_iter()
            .enumerate()
        {
            let operand = operand.map(Operand::Existing);
            operands.push(match operand {
                Some(_)
                    if operand == Some(Operand::Existing(self.site().weight.operand))
                        && weight.is_some() =>
                {
                    weight
                }
                Some(_) if operand == self.site().bias.map(Operand::Existing) && bias.is_some() => {
                    bias_done = true;
                    bias
                }
                Some(_)
                    if operand == self.site().bias.map(Operand::Existing)
                        && own == OwnBias::Left =>
                {
                    None
                }
                // A decomposed norm multiplies the normalised value, not the module's input.
                Some(_) if slot == 0 && (operand == Some(own_input) || input != own_input) => {
                    Some(input)
                }
                other => other,
            });
        }
        let new = self.emitter.new_node(
            &node.op.domain,
            &node.op.op_type,
            operands,
            node.attributes.clone(),
        );
        let result = self.emitter.patch.node(new, None);
        match bias {
            Some(bias) if !bias_done => self.emitter.node("Add", &[result, bias], Vec::new()),
            _ if bias.is_none()
                && self.site().bias.is_some()
                && !self.bias_inside()
                && self.site().kind == SiteKind::Norm =>
            {
                let bias = self.bias();
                self.emitter.node("Add", &[result, bias], Vec::new())
            }
            _ => result,
        }
    }
}
