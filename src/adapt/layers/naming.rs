//! Names of layers in texts: `layers.5` in place of `layers.2`.

/// How texts name the layers of a list.
pub(super) struct Naming {
    /// With what numbers follow, the most certain form first; a later one counts only where an earlier
    /// one does not occur.
    forms: Vec<Vec<String>>,
}

impl Naming {
    pub fn new(list: &str) -> Naming {
        let last = list.rsplit('.').next().unwrap_or(list);
        Naming {
            forms: vec![
                // Torch's path, and names of nodes made of it.
                vec![format!("{list}."), format!("{}.", list.replace('.', "/"))],
                vec![format!("{last}.")],
            ],
        }
    }

    /// Whether a text is about a layer.
    pub fn names(&self, text: &str, layer: usize) -> bool {
        self.moved(text, layer, layer + 1) != text
    }

    /// A text about one layer as one about another.
    pub fn moved(&self, text: &str, from: usize, to: usize) -> String {
        for forms in &self.forms {
            let mut moved = text.to_owned();
            for form in forms {
                moved = replaced(&moved, form, from, to);
            }
            if moved != text {
                return moved;
            }
        }
        text.to_owned()
    }
}

/// The text with the number of the layer exchanged wherever it stands behind the form, as a word.
fn replaced(text: &str, form: &str, from: usize, to: usize) -> String {
    let (wanted, new) = (format!("{form}{from}"), format!("{form}{to}"));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&wanted) {
        let (before, behind) = (&rest[..at], &rest[at + wanted.len()..]);
        let starts = !out
            .chars()
            .chain(before.chars())
            .last()
            .is_some_and(is_word);
        let ends = !behind.chars().next().is_some_and(is_word);
        out.push_str(before);
        out.push_str(if starts && ends { &new } else { &wanted });
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, text: &str, moved: &str) {
        assert_eq!(Naming::new(list).moved(text, 2, 15), moved);
    }

    #[test]
    fn paths_and_names_of_nodes_get_the_new_number() {
        let list = "model.layers";
        check(list, "model.layers.2.mlp.up", "model.layers.15.mlp.up");
        check(list, "/model/layers.2/mlp/Mul", "/model/layers.15/mlp/Mul");
        check(
            list,
            "['', 'model.layers.2', 'model.layers.2.mlp']",
            "['', 'model.layers.15', 'model.layers.15.mlp']",
        );
        check("h", "transformer.h.2.attn", "transformer.h.15.attn");
    }

    #[test]
    fn other_numbers_words_and_lists_stay() {
        let list = "model.layers";
        for text in [
            "model.layers.20.mlp",
            "my_layers.2",
            "layers.2x",
            "add_2",
            "",
        ] {
            check(list, text, text);
        }
        check(
            list,
            "model.layers.2.experts.layers.2",
            "model.layers.15.experts.layers.2",
        );
    }
}
