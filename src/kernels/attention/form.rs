//! What a node of attention says besides its operands.

use super::Keys;

/// A node reads queries, keys and values, then, as far as there are any, the mask, the gradient of the
/// result and the sums of [`Given::inner`](super::Given::inner).
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    pub scale: f32,
    pub keys: Keys,
    /// Whether a probability that is no number counts as 0: those of a query that may see nothing.
    pub guards: bool,
    pub has_mask: bool,
    pub has_inner: bool,
    /// What the node gives, by slot; nothing stands for the result itself.
    pub gradients: Vec<Gradient>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradient {
    Queries,
    Keys(Keys),
    Values,
}

impl Form {
    pub fn operands(&self) -> usize {
        let given = usize::from(!self.gradients.is_empty());
        3 + usize::from(self.has_mask) + given + usize::from(self.has_inner)
    }

    /// As an attribute of a node.
    pub fn encode(&self) -> Vec<i64> {
        let flags = [
            self.keys == Keys::Columns,
            self.guards,
            self.has_mask,
            self.has_inner,
        ];
        let gradients = self.gradients.iter().map(|gradient| match gradient {
            Gradient::Queries => 0,
            Gradient::Keys(Keys::Rows) => 1,
            Gradient::Keys(Keys::Columns) => 2,
            Gradient::Values => 3,
        });
        let scale = i64::from(self.scale.to_bits());
        let head = std::iter::once(scale).chain(flags.map(i64::from));
        head.chain(gradients).collect()
    }

    /// `None` for what is no form: a gradient twice, or sums that none is computed from.
    pub fn decode(numbers: &[i64]) -> Option<Form> {
        let (head, codes) = numbers.split_first_chunk::<5>()?;
        let [scale, keys, guards, mask, inner] = *head;
        let flag = |number: i64| match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        let gradient = |code: &i64| match code {
            0 => Some(Gradient::Queries),
            1 => Some(Gradient::Keys(Keys::Rows)),
            2 => Some(Gradient::Keys(Keys::Columns)),
            3 => Some(Gradient::Values),
            _ => None,
        };
        let gradients: Vec<Gradient> = codes.iter().map(gradient).collect::<Option<_>>()?;
        let count = |of: fn(&Gradient) -> bool| gradients.iter().filter(|g| of(g)).count();
        let counts = [
            count(|g| *g == Gradient::Queries),
            count(|g| matches!(g, Gradient::Keys(_))),
            count(|g| *g == Gradient::Values),
        ];
        let has_inner = flag(inner)?;
        let is_sound = counts.iter().all(|n| *n <= 1) && (!has_inner || counts[0] + counts[1] > 0);
        is_sound.then_some(Form {
            scale: f32::from_bits(u32::try_from(scale).ok()?),
            keys: match flag(keys)? {
                true => Keys::Columns,
                false => Keys::Rows,
            },
            guards: flag(guards)?,
            has_mask: flag(mask)?,
            has_inner,
            gradients,
        })
    }
}
