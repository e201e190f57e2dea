//! What is computed of a row.

/// What an operand holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    /// One byte a truth value: read as 0 and 1.
    Bool,
    /// Read as a number, which is exact where it is an index.
    I64,
}

macro_rules! ops {
    ($($(#[doc = $doc:literal])* $op:ident = $code:literal, $operands:expr;)*) => {
        /// What a step does. `n` is the length of a row; rows of length 1 are stretched where a step
        /// takes rows of one length.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op { $($(#[doc = $doc])* $op = $code,)* }

        impl Op {
            #[cfg(test)]
            pub const ALL: &[Op] = &[$(Op::$op),*];

            fn from_code(code: i64) -> Option<Op> {
                match code { $($code => Some(Op::$op),)* _ => None }
            }

            /// How many operands it takes; `None` for any number from 1 on.
            pub fn operands(self) -> Option<usize> {
                match self { $(Op::$op => $operands,)* }
            }
        }
    };
}

ops! {
    /// The number whose bits `numbers[0]` has.
    Number = 0, Some(0);
    Neg = 1, Some(1);
    Exp = 2, Some(1);
    Log = 3, Some(1);
    Sqrt = 4, Some(1);
    Reciprocal = 5, Some(1);
    Sigmoid = 6, Some(1);
    Tanh = 7, Some(1);
    Erf = 8, Some(1);
    Square = 9, Some(1);
    Add = 10, Some(2);
    Sub = 11, Some(2);
    Mul = 12, Some(2);
    Div = 13, Some(2);
    Max = 14, Some(2);
    Min = 15, Some(2);
    /// The second operand where the first is not 0, otherwise the third.
    Select = 16, Some(3);
    /// One number: the sum of the row.
    Sum = 17, Some(1);
    Mean = 18, Some(1);
    Largest = 19, Some(1);
    Softmax = 20, Some(1);
    LogSoftmax = 21, Some(1);
    /// From `numbers[0]` up to `numbers[1]`.
    Slice = 22, Some(1);
    /// One behind the other.
    Concat = 23, None;
    /// One number: the element of the first operand at the index that the second is.
    Pick = 24, Some(2);
    /// The first operand with the third added at the index that the second is.
    AddAt = 25, Some(3);
}

impl Op {
    /// Whether an element of its result depends on the same element of its operands alone.
    pub fn is_elementwise(self) -> bool {
        (self as u8) <= Op::Select as u8
    }
}

/// A step. It defines the value whose number follows on those of the inputs and of the steps before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub op: Op,
    /// Values.
    pub operands: Vec<u32>,
    pub numbers: [i64; 2],
}

impl Step {
    pub fn new(op: Op, operands: Vec<u32>) -> Step {
        Step {
            op,
            operands,
            numbers: [0; 2],
        }
    }

    pub fn number(value: f32) -> Step {
        Step {
            op: Op::Number,
            operands: Vec::new(),
            numbers: [i64::from(value.to_bits()), 0],
        }
    }

    pub fn slice(of: u32, start: i64, end: i64) -> Step {
        Step {
            op: Op::Slice,
            operands: vec![of],
            numbers: [start, end],
        }
    }
}

/// What is computed of a row: values are the inputs in their order, then the results of the steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub inputs: Vec<Kind>,
    pub steps: Vec<Step>,
    /// Values, all of steps.
    pub outputs: Vec<u32>,
}

/// The first number of an encoded program.
const VERSION: i64 = 1;
/// No program that anybody writes has more of anything.
const MOST: usize = 1 << 16;

impl Program {
    /// As an attribute of a node holds it.
    pub fn encode(&self) -> Vec<i64> {
        let mut numbers = vec![VERSION, self.inputs.len() as i64];
        numbers.extend(self.inputs.iter().map(|kind| match kind {
            Kind::F32 => 0,
            Kind::Bool => 1,
            Kind::I64 => 2,
        }));
        numbers.push(self.steps.len() as i64);
        for step in &self.steps {
            numbers.push(step.op as i64);
            numbers.push(step.operands.len() as i64);
            numbers.extend(step.operands.iter().map(|value| i64::from(*value)));
            numbers.extend(step.numbers);
        }
        numbers.push(self.outputs.len() as i64);
        numbers.extend(self.outputs.iter().map(|value| i64::from(*value)));
        numbers
    }

    /// The inverse of [`Program::encode`]; `None` for what is no program.
    pub fn decode(numbers: &[i64]) -> Option<Program> {
        let mut reader = Reader(numbers);
        if reader.next()? != VERSION {
            return None;
        }
        let mut program = Program::default();
        for _ in 0..reader.count()? {
            program.inputs.push(match reader.next()? {
                0 => Kind::F32,
                1 => Kind::Bool,
                2 => Kind::I64,
                _ => return None,
            });
        }
        for _ in 0..reader.count()? {
            let defined = program.inputs.len() + program.steps.len();
            let step = reader.step(defined)?;
            program.steps.push(step);
        }
        let defined = program.inputs.len() + program.steps.len();
        for _ in 0..reader.count()? {
            let output = reader.value(defined)?;
            if (output as usize) < program.inputs.len() {
                return None;
            }
            program.outputs.push(output);
        }
        reader.0.is_empty().then_some(program)
    }

    pub fn value_count(&self) -> usize {
        self.inputs.len() + self.steps.len()
    }

    pub(super) fn is_elementwise(&self) -> bool {
        self.steps.iter().all(|step| step.op.is_elementwise())
    }
}

struct Reader<'n>(&'n [i64]);

impl Reader<'_> {
    fn next(&mut self) -> Option<i64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.next()?).ok()?;
        (count <= MOST).then_some(count)
    }

    /// One of so many values.
    fn value(&mut self, defined: usize) -> Option<u32> {
        let value = u32::try_from(self.next()?).ok()?;
        ((value as usize) < defined).then_some(value)
    }

    fn step(&mut self, defined: usize) -> Option<Step> {
        let op = Op::from_code(self.next()?)?;
        let count = self.count()?;
        if op.operands().map_or(count == 0, |wanted| wanted != count) {
            return None;
        }
        let operands: Option<Vec<u32>> = (0..count).map(|_| self.value(defined)).collect();
        Some(Step {
            op,
            operands: operands?,
            numbers: [self.next()?, self.next()?],
        })
    }
}
