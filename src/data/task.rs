//! What is learned from a row, and from which of its columns.

/// What a row is an example of. Column names are those of [`Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The next token: of `completion` after `prompt`, of what the assistant says in `messages`, or
    /// of all of `text`.
    CausalLm,
    /// `completion`, which a decoder says of the `prompt` that an encoder reads.
    Seq2Seq,
    /// The class `label` of `text`, or of `text` and `text_pair`.
    Classification,
    /// All the classes `labels` of `text`, or of `text` and `text_pair`.
    MultiLabel,
    /// The number `label` of `text`, or of `text` and `text_pair`; or several numbers.
    Regression,
    /// The class of every word: `tags` of `tokens`.
    TokenClassification,
    /// What belongs together: `anchor` and `positive`, and not `negative`; or how much, as `score`.
    Pairs,
    /// Whatever the model does with arrays under the names of its inputs (`.npz`).
    Arrays,
}

const TASKS: &[(Task, &str)] = &[
    (Task::CausalLm, "causal_lm"),
    (Task::Seq2Seq, "seq2seq"),
    (Task::Classification, "classification"),
    (Task::MultiLabel, "multi_label"),
    (Task::Regression, "regression"),
    (Task::TokenClassification, "token_classification"),
    (Task::Pairs, "pairs"),
    (Task::Arrays, "arrays"),
];

impl Task {
    /// The name that options have for it.
    pub fn name(self) -> &'static str {
        let found = TASKS.iter().find(|(task, _)| *task == self);
        found.map_or("", |(_, name)| name)
    }

    pub fn parse(name: &str) -> Option<Task> {
        let found = TASKS.iter().find(|(_, own)| *own == name);
        found.map(|(task, _)| *task)
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        TASKS.iter().map(|(_, name)| *name)
    }

    /// Whether tokens have labels.
    pub fn labels_tokens(self) -> bool {
        matches!(
            self,
            Task::CausalLm | Task::Seq2Seq | Task::TokenClassification
        )
    }

    /// Whether labels are tokens.
    pub(super) fn predicts_tokens(self) -> bool {
        matches!(self, Task::CausalLm | Task::Seq2Seq)
    }

    /// The column that holds classes, for a task that has them.
    pub(super) fn class_column(self) -> Option<Role> {
        match self {
            Task::Classification => Some(Role::Label),
            Task::MultiLabel => Some(Role::Labels),
            Task::TokenClassification => Some(Role::Tags),
            Task::CausalLm | Task::Seq2Seq | Task::Regression | Task::Pairs | Task::Arrays => None,
        }
    }
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Text,
    TextPair,
    Prompt,
    Completion,
    /// A conversation: a list of objects with `role` and whatever the template asks for.
    Messages,
    /// What the assistant may call, for templates that know of it.
    Tools,
    /// Token ids, for data that is tokenized already.
    InputIds,
    /// One class, by name or number; for regression a number or several.
    Label,
    /// Of token ids: one label a token, `-100` where none counts. Of several classes: those that
    /// hold, by name or number, or for every class whether it holds.
    Labels,
    /// Words.
    Tokens,
    /// The class of every word, by name or number; `null` or `-100` where none counts.
    Tags,
    Anchor,
    Positive,
    Negative,
    /// How much anchor and positive have to do with each other.
    Score,
}

const ROLES: &[(Role, &str)] = &[
    (Role::Text, "text"),
    (Role::TextPair, "text_pair"),
    (Role::Prompt, "prompt"),
    (Role::Completion, "completion"),
    (Role::Messages, "messages"),
    (Role::Tools, "tools"),
    (Role::InputIds, "input_ids"),
    (Role::Label, "label"),
    (Role::Labels, "labels"),
    (Role::Tokens, "tokens"),
    (Role::Tags, "tags"),
    (Role::Anchor, "anchor"),
    (Role::Positive, "positive"),
    (Role::Negative, "negative"),
    (Role::Score, "score"),
];

impl Role {
    /// The column's name in data that does not say otherwise.
    pub fn name(self) -> &'static str {
        let found = ROLES.iter().find(|(role, _)| *role == self);
        found.map_or("", |(_, name)| name)
    }

    pub fn parse(name: &str) -> Option<Role> {
        let found = ROLES.iter().find(|(_, own)| *own == name);
        found.map(|(role, _)| *role)
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        ROLES.iter().map(|(_, name)| *name)
    }
}

/// Which column has which role, where it is not the one of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(pub Vec<(Role, String)>);

impl Columns {
    pub(super) fn name(&self, role: Role) -> &str {
        self.given(role).unwrap_or(role.name())
    }

    pub(super) fn given(&self, role: Role) -> Option<&str> {
        let found = self.0.iter().rev().find(|(own, _)| *own == role);
        found.map(|(_, name)| name.as_str())
    }
}
