//! What the modules of a model take and give, as far as formulas ask for it.

/// The modules of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs(pub Vec<ModuleOutput>);

/// One call of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleOutput {
    /// Its paths, that of this call first; never empty.
    pub paths: Vec<String>,
    /// How many features it takes.
    pub inputs: i64,
    /// How many features it gives.
    pub features: i64,
    /// Whether it is a linear layer.
    pub is_linear: bool,
    /// How many heads the query has of the attention whose result it reads; or why there is none.
    pub heads: Result<i64, String>,
}

impl ModuleOutput {
    /// The path of this call.
    pub fn path(&self) -> &str {
        &self.paths[0]
    }
}

impl Outputs {
    /// The calls of a module with this very path.
    pub fn at<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s ModuleOutput> {
        self.0.iter().filter(move |module| module.path() == path)
    }

    /// The calls of modules whose path is this, or else of those whose path ends with it behind a point.
    pub fn named(&self, name: &str) -> Vec<&ModuleOutput> {
        let of = |test: &dyn Fn(&str) -> bool| -> Vec<&ModuleOutput> {
            let fits = |module: &&ModuleOutput| module.paths.iter().any(|path| test(path));
            self.0.iter().filter(fits).collect()
        };
        let exact = of(&|path| path == name);
        if !exact.is_empty() {
            return exact;
        }
        let ends = |path: &str| {
            let front = path.strip_suffix(name);
            front.is_some_and(|front| front.ends_with('.'))
        };
        of(&ends)
    }

    /// Every path.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .flat_map(|module| module.paths.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_path_wins_over_ends_of_paths() {
        let module = |path: &str| ModuleOutput {
            paths: vec![path.to_owned()],
            inputs: 4,
            features: 4,
            is_linear: false,
            heads: Err(String::new()),
        };
        let outputs = Outputs(vec![
            module("norm"),
            module("a.norm"),
            module("a.last_norm"),
        ]);
        let paths = |name: &str| -> Vec<String> {
            let found = outputs.named(name).into_iter();
            found.map(|module| module.path().to_owned()).collect()
        };
        assert_eq!(paths("norm"), ["norm"]);
        assert_eq!(paths("a.norm"), ["a.norm"]);
        assert_eq!(paths("last_norm"), ["a.last_norm"]);
        assert!(paths("orm").is_empty());
        assert!(paths("").is_empty());
    }
}
