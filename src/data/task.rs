//! What is learned from a row, and from which of its columns.

/// What a row is an example of. Column names are those of [`Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The next token: of `completion` after `prompt`, of what the assistant says in `messages`, or
    /// of all of `text`.
    CausalLm,
}

const TASKS: &[(Task, &str)] = &[(Task::CausalLm, "causal_lm")];

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
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Text,
    Prompt,
    Completion,
    /// Token ids, for data that is tokenized already.
    InputIds,
    /// One label a token, `-100` where none counts.
    Labels,
}

const ROLES: &[(Role, &str)] = &[
    (Role::Text, "text"),
    (Role::Prompt, "prompt"),
    (Role::Completion, "completion"),
    (Role::InputIds, "input_ids"),
    (Role::Labels, "labels"),
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
