//! The syntax tree of a `.peft` file.
//!
//! Every node keeps its span. Documentation comments (`///`, and `//!` for the file) are kept as
//! text; ordinary comments are kept by the formatter from the source itself.

use crate::diag::{Span, Spanned};

/// A name as written.
pub type Ident = Spanned<String>;
/// A string literal: the text after escapes, the span with its quotes.
pub type StringLit = Spanned<String>;

/// A whole source file.
#[derive(Clone, Debug)]
pub struct File {
    /// The `//!` lines, without the marks.
    pub doc: String,
    pub items: Vec<Item>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Item {
    Use(Use),
    Method(Method),
    Function(Function),
    Adapter(Adapter),
}

/// `use std::lora`, `use std::{lora, ia3}`, `use "./mine.peft"::{gated}`.
#[derive(Clone, Debug)]
pub struct Use {
    pub source: UseSource,
    /// The imported names; never empty. An imported item may be renamed: `lora as plain`.
    pub names: Vec<UseName>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum UseSource {
    /// A named library, such as `std`.
    Library(Ident),
    /// A file relative to the importing one.
    File(StringLit),
}

#[derive(Clone, Debug)]
pub struct UseName {
    pub name: Ident,
    pub alias: Option<Ident>,
}

/// `method name(hyper: type = default, …) on kind, kind { … }`.
#[derive(Clone, Debug)]
pub struct Method {
    pub doc: String,
    pub name: Ident,
    pub hypers: Vec<Hyper>,
    /// Site kinds: `linear`, `conv`, `embedding`, `norm`.
    pub kinds: Vec<Ident>,
    pub body: Vec<MethodItem>,
    pub span: Span,
}

/// A hyper-parameter: `rank: int = 8` or `pool: choice("mean", "last") = "mean"`.
#[derive(Clone, Debug)]
pub struct Hyper {
    pub doc: String,
    pub name: Ident,
    pub ty: HyperType,
    pub default: Option<Expr>,
}

/// The type of a hyper-parameter as written.
#[derive(Clone, Debug)]
pub enum HyperType {
    /// `int`, `float`, `bool`, `string`; checked by `hir`.
    Named(Ident),
    /// One of the listed strings.
    Choice(Vec<StringLit>, Span),
}

#[derive(Clone, Debug)]
pub enum MethodItem {
    Require(Require),
    Param(Box<Param>),
    State(Box<State>),
    Let(Let),
    Function(Function),
    Forward(Forward),
    Hook(Hook),
    Loss(Loss),
    Interchange(Box<Interchange>),
}

/// `require condition` or `require condition, "message"`.
#[derive(Clone, Debug)]
pub struct Require {
    pub condition: Expr,
    pub message: Option<StringLit>,
    pub span: Span,
}

/// `[shared] param|const name: [shape] = initialiser [when condition] [by key]
/// [rate factor]`.
///
/// `param` is trained, `const` is frozen and saved with the adapter; `shared` gives all sites of
/// one `adapt` statement the same tensor, or with a key those for which it has the same value. `rate`
/// is what its learning rate is multiplied with.
#[derive(Clone, Debug)]
pub struct Param {
    pub doc: String,
    pub shared: Option<Span>,
    pub trainable: bool,
    pub name: Ident,
    pub shape: Vec<Expr>,
    pub init: Expr,
    pub when: Option<Expr>,
    pub key: Option<Expr>,
    pub rate: Option<Expr>,
    pub span: Span,
}

/// `let name = expression`: of hyper-parameters and sizes only, computed when compiling.
#[derive(Clone, Debug)]
pub struct Let {
    pub name: Ident,
    pub value: Expr,
    pub span: Span,
}

/// `fn name(a, b) { … }`.
#[derive(Clone, Debug)]
pub struct Function {
    pub doc: String,
    pub name: Ident,
    pub parameters: Vec<Ident>,
    pub body: Block,
    pub span: Span,
}

/// `forward(x, y) { … }`: the adapted output of a site with input `x` and base output `y`.
#[derive(Clone, Debug)]
pub struct Forward {
    pub parameters: Vec<Ident>,
    pub body: Block,
    pub span: Span,
}

/// `on gradient { … }`, `on step { … }`: what a method does in training beside `forward`. Its statements
/// give parameters new gradients or values, and states new values.
#[derive(Clone, Debug)]
pub struct Hook {
    pub event: Event,
    pub when: Option<Expr>,
    pub body: Vec<Statement>,
    pub span: Span,
}

/// `state name: [shape] = zeros [when condition]`: what a method keeps from step to step of training.
#[derive(Clone, Debug)]
pub struct State {
    pub doc: String,
    pub name: Ident,
    pub shape: Vec<Expr>,
    pub init: Expr,
    pub when: Option<Expr>,
    pub span: Span,
}

/// `loss { … }`: a number that is added to the loss of the task.
#[derive(Clone, Debug)]
pub struct Loss {
    pub body: Block,
    pub span: Span,
}

/// `interchange peft "LORA" { … }`: what the method is in another tool.
#[derive(Clone, Debug)]
pub struct Interchange {
    /// The tool.
    pub tool: Ident,
    /// What the tool calls the method.
    pub kind: StringLit,
    pub settings: Vec<InterchangeSetting>,
    pub tensors: Vec<InterchangeTensor>,
    pub span: Span,
}

/// `key = value [when condition] [by key of exceptions]`: a setting of the tool's configuration.
#[derive(Clone, Debug)]
pub struct InterchangeSetting {
    /// With points where it is inside of others: `use_bdlora.nblocks`.
    pub key: Ident,
    pub value: Expr,
    pub when: Option<Expr>,
    /// The setting that holds, by module, the values of those that differ.
    pub exceptions: Option<Ident>,
    pub span: Span,
}

/// `"name" = parameter [as form, …] [when condition]`: a tensor of the tool's file.
#[derive(Clone, Debug)]
pub struct InterchangeTensor {
    pub name: StringLit,
    pub parameter: Ident,
    pub forms: Vec<Ident>,
    pub when: Option<Expr>,
    pub span: Span,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Gradients are there, and the optimizer has not seen them yet.
    Gradient,
    /// The optimizer has changed the parameters.
    Step,
}

impl Event {
    /// The hook as written.
    pub fn written(self) -> &'static str {
        match self {
            Event::Gradient => "on gradient",
            Event::Step => "on step",
        }
    }
}

/// Statements followed by a value.
#[derive(Clone, Debug)]
pub struct Block {
    pub statements: Vec<Statement>,
    pub value: Option<Box<Expr>>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Statement {
    /// `name = expression`; assigning again rebinds.
    Bind {
        name: Ident,
        value: Expr,
        span: Span,
    },
    /// `for i in 0..n { … }`, unrolled when compiling. Bindings of the body outlive it if the name
    /// was bound before.
    For {
        variable: Ident,
        start: Expr,
        end: Expr,
        body: Vec<Statement>,
        span: Span,
    },
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    /// An integer literal.
    Int(i64),
    /// A float literal.
    Float(f64),
    /// `1.5%`: the number before the sign; only `expect` uses it.
    Percent(f64),
    Bool(bool),
    Str(String),
    Name(String),
    Unary(UnaryOp, Box<Expr>),
    Binary(Spanned<BinaryOp>, Box<Expr>, Box<Expr>),
    /// `f(a, name = b)`; the callee is a plain name.
    Call {
        callee: Ident,
        arguments: Vec<Argument>,
    },
    /// `a[0..k, :, i]`.
    Index(Box<Expr>, Vec<Subscript>),
    /// `A.T`.
    Field(Box<Expr>, Ident),
    /// `[a, b]`: a shape or a list.
    List(Vec<Expr>),
    /// `if c { … } else { … }`: chosen when compiling; `else if` nests in the else block.
    If {
        condition: Box<Expr>,
        then: Block,
        otherwise: Block,
    },
}

#[derive(Clone, Debug)]
pub struct Argument {
    pub name: Option<Ident>,
    pub value: Expr,
}

#[derive(Clone, Debug)]
pub enum Subscript {
    /// One position: the axis goes.
    At(Expr),
    /// `a..b`, either end optional; `:` is both absent.
    Range {
        start: Option<Expr>,
        end: Option<Expr>,
        span: Span,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    Negate,
    Not,
}

impl UnaryOp {
    /// The operator as written, without the blank that `not` needs behind it.
    pub fn symbol(self) -> &'static str {
        match self {
            UnaryOp::Negate => "-",
            UnaryOp::Not => "not",
        }
    }

    /// Binding strength on the scale of [`BinaryOp::precedence`]: `not a == b` negates the
    /// comparison, `-a ** b` the power.
    pub fn precedence(self) -> u8 {
        match self {
            UnaryOp::Not => 3,
            UnaryOp::Negate => 7,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// `%`: the remainder.
    Remainder,
    /// `@`: the matrix product.
    MatMul,
    /// `**`.
    Power,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
}

impl BinaryOp {
    pub const ALL: &'static [BinaryOp] = {
        use BinaryOp::*;
        &[
            Or,
            And,
            Equal,
            NotEqual,
            Less,
            LessEqual,
            Greater,
            GreaterEqual,
            Add,
            Subtract,
            Multiply,
            Divide,
            Remainder,
            MatMul,
            Power,
        ]
    };

    /// The operator as written.
    pub fn symbol(self) -> &'static str {
        use BinaryOp::*;
        match self {
            Add => "+",
            Subtract => "-",
            Multiply => "*",
            Divide => "/",
            Remainder => "%",
            MatMul => "@",
            Power => "**",
            Equal => "==",
            NotEqual => "!=",
            Less => "<",
            LessEqual => "<=",
            Greater => ">",
            GreaterEqual => ">=",
            And => "and",
            Or => "or",
        }
    }

    /// Binding strength, higher binds tighter: or 1, and 2, `not` 3, comparisons 4 (which do not
    /// chain), sums 5, products (`*`, `/`, `%`, `@`) 6, unary minus 7, power 8 (right-associative).
    pub fn precedence(self) -> u8 {
        use BinaryOp::*;
        match self {
            Or => 1,
            And => 2,
            Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual => 4,
            Add | Subtract => 5,
            Multiply | Divide | Remainder | MatMul => 6,
            Power => 8,
        }
    }

    /// Whether it yields a truth value from two numbers, as `<` does.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(
            self,
            Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual
        )
    }
}

/// `adapter name { … }`.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub doc: String,
    pub name: Ident,
    pub items: Vec<AdapterItem>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum AdapterItem {
    Layers(Layers),
    Adapt(Adapt),
    Train(Train),
    Expect(Expect),
}

/// `adapt targets with method(args) [+ method(args)] [except targets] [where condition]
/// [override "pattern" (args)]…`.
#[derive(Clone, Debug)]
pub struct Adapt {
    pub targets: Vec<Target>,
    /// Applied in the order written, each to the result of the one before.
    pub methods: Vec<MethodCall>,
    pub except: Vec<Target>,
    /// Over the sizes of the site, such as `in >= 512`.
    pub condition: Option<Expr>,
    pub overrides: Vec<Override>,
    pub span: Span,
}

/// `lora(rank = 8)`; the parentheses may be left out.
#[derive(Clone, Debug)]
pub struct MethodCall {
    pub method: Ident,
    pub arguments: Vec<Argument>,
    pub span: Span,
}

/// `override "pattern" (rank = 16)`: other hyper-parameters for some of the matched sites.
#[derive(Clone, Debug)]
pub struct Override {
    pub pattern: Pattern,
    pub arguments: Vec<Argument>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Target {
    Pattern(Pattern),
    /// `all linear`.
    All {
        kind: Ident,
        span: Span,
    },
    /// `role(q)`: by structure, for models whose names are gone.
    Role {
        role: Ident,
        span: Span,
    },
}

/// A module pattern: a glob string, or `regex "…"` whose text is as written between the quotes,
/// backslashes included; optionally only some output rows of the weight,
/// `"*.qkv_proj"[0..out / 3]`.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub regex: bool,
    pub text: StringLit,
    pub slice: Option<Box<Slice>>,
    pub span: Span,
}

/// `[a..b]` behind a pattern: output rows, either end optional.
#[derive(Clone, Debug)]
pub struct Slice {
    pub start: Option<Expr>,
    pub end: Option<Expr>,
    pub span: Span,
}

/// `layers "model.layers" = [0..4, 2..5]`: which layers of a list the model has, in this order.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The path of the list.
    pub path: StringLit,
    pub ranges: Vec<LayerRange>,
    pub span: Span,
}

/// `a..b`, either end optional, or `a`, which is `a..a + 1`.
#[derive(Clone, Debug)]
pub struct LayerRange {
    pub start: Option<i64>,
    /// Behind the last one.
    pub end: Option<i64>,
    pub span: Span,
}

/// `train "score", "*.norm"`: the modules' own weights are trained in full.
#[derive(Clone, Debug)]
pub struct Train {
    pub targets: Vec<Target>,
    pub except: Vec<Target>,
    pub span: Span,
}

/// `expect sites == 24` or `expect identity at start`.
#[derive(Clone, Debug)]
pub struct Expect {
    pub claim: Claim,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Claim {
    /// A condition over `sites`, `trainable`, `coverage`.
    Condition(Expr),
    /// `identity at start`.
    IdentityAtStart,
    /// A property by name, such as `mergeable` or `pad_invariant`.
    Property(Ident),
}
