//! What each token of a text is in its tree: `-` a sign or a difference, `(` a call or a
//! parenthesis.

use super::super::grammar::{Grammar, Rule};
use pest::Parser;
use pest::iterators::Pair;
use std::collections::{BTreeMap, BTreeSet};

/// The place of a token in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub rule: Rule,
    /// The rule that it is a part of.
    pub parent: Rule,
    /// Where the construct starts whose body this token opens, or which it goes on with: that of a
    /// brace around statements, and of `else`.
    pub anchor: Option<usize>,
}

/// The roles of the tokens by where they start.
#[derive(Default)]
pub(super) struct Roles {
    tokens: BTreeMap<usize, Role>,
    statements: BTreeSet<usize>,
}

impl Roles {
    pub fn of(&self, start: usize) -> Option<Role> {
        self.tokens.get(&start).copied()
    }

    /// Whether an item or statement starts here.
    pub fn starts_statement(&self, start: usize) -> bool {
        self.statements.contains(&start)
    }
}

/// The roles in a text of the grammar; none in another one.
pub(super) fn roles(text: &str) -> Roles {
    let mut roles = Roles::default();
    for file in Grammar::parse(Rule::file, text).into_iter().flatten() {
        visit(file, Rule::file, 0, &mut roles);
    }
    roles
}

/// `construct` is the start of the innermost one around the pair that has a body in braces.
fn visit(pair: Pair<'_, Rule>, parent: Rule, construct: usize, roles: &mut Roles) {
    let (rule, span) = (pair.as_rule(), pair.as_span());
    let construct = match rule {
        Rule::method | Rule::adapter | Rule::function => span.start(),
        Rule::forward | Rule::hook | Rule::loss_item | Rule::interchange => span.start(),
        Rule::for_loop | Rule::if_expr => span.start(),
        _ => construct,
    };
    if rule == Rule::percent {
        // The sign is no pair of its own.
        roles.insert(span.end() - 1, rule, rule, construct);
    }
    let has_statements = matches!(
        rule,
        Rule::file | Rule::method | Rule::adapter | Rule::block | Rule::interchange
    );
    let mut is_token = !span.as_str().is_empty();
    for part in pair.into_inner() {
        is_token = false;
        if has_statements {
            roles.statements.insert(part.as_span().start());
        }
        visit(part, rule, construct, roles);
    }
    if is_token {
        roles.insert(span.start(), rule, parent, construct);
    }
}

impl Roles {
    fn insert(&mut self, start: usize, rule: Rule, parent: Rule, construct: usize) {
        let opens_body = rule == Rule::open_brace && parent != Rule::use_item;
        let anchor = (opens_body || rule == Rule::kw_else).then_some(construct);
        let role = Role {
            rule,
            parent,
            anchor,
        };
        self.tokens.insert(start, role);
    }
}
