//! Names for what comes out of a function: readable, and used by nothing else.

use rustc_hash::FxHashMap;

/// The names that are taken, each with the number that its next double gets.
#[derive(Default)]
struct Taken(FxHashMap<String, usize>);

impl Taken {
    fn reserve(&mut self, name: &str) {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), 1);
        }
    }

    /// The name itself where it is free, else with the first number that makes it free.
    fn fresh(&mut self, wanted: String) -> String {
        let Some(first) = self.0.get(&wanted).copied() else {
            self.0.insert(wanted.clone(), 1);
            return wanted;
        };
        let mut number = first;
        let name = loop {
            let name = format!("{wanted}_{number}");
            number += 1;
            if !self.0.contains_key(&name) {
                break name;
            }
        };
        self.0.insert(wanted, number);
        self.0.insert(name.clone(), 1);
        name
    }
}

/// All names of a model, subgraphs included: a name in a subgraph must not hide one around it.
#[derive(Default)]
pub(super) struct Names {
    values: Taken,
    nodes: Taken,
    sites: Taken,
}

impl Names {
    pub fn reserve_value(&mut self, name: &str) {
        self.values.reserve(name);
    }

    pub fn reserve_node(&mut self, name: &str) {
        self.nodes.reserve(name);
    }

    /// What everything of one call starts with; calls of one name are told apart.
    pub fn site(&mut self, call: &str) -> String {
        self.sites.fresh(call.to_owned())
    }

    pub fn value(&mut self, site: &str, inner: &str) -> String {
        self.values.fresh(format!("{site}/{inner}"))
    }

    pub fn node(&mut self, site: &str, inner: &str) -> String {
        self.nodes.fresh(format!("{site}/{inner}"))
    }
}
