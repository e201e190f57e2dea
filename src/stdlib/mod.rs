//! The standard library: `.peft` texts, one method a file, and the table that names them.
//!
//! Nothing in [`LIBRARY`] is special: a method of the library could stand in any user's file. Adding one is
//! one file and one line in [`LIBRARY`].

/// One file of the library.
pub struct LibraryFile {
    /// The name that `use std::name` imports; the file declares a method of this name.
    pub name: &'static str,
    pub text: &'static str,
}

/// Every file, by name.
pub static LIBRARY: &[LibraryFile] = &[
    LibraryFile {
        name: "adalora",
        text: include_str!("adalora.peft"),
    },
    LibraryFile {
        name: "adamss",
        text: include_str!("adamss.peft"),
    },
    LibraryFile {
        name: "adaption_prompt",
        text: include_str!("adaption_prompt.peft"),
    },
    LibraryFile {
        name: "alora",
        text: include_str!("alora.peft"),
    },
    LibraryFile {
        name: "arrow",
        text: include_str!("arrow.peft"),
    },
    LibraryFile {
        name: "bdlora",
        text: include_str!("bdlora.peft"),
    },
    LibraryFile {
        name: "beft",
        text: include_str!("beft.peft"),
    },
    LibraryFile {
        name: "bitfit",
        text: include_str!("bitfit.peft"),
    },
    LibraryFile {
        name: "boft",
        text: include_str!("boft.peft"),
    },
    LibraryFile {
        name: "c3a",
        text: include_str!("c3a.peft"),
    },
    LibraryFile {
        name: "corda",
        text: include_str!("corda.peft"),
    },
    LibraryFile {
        name: "deft",
        text: include_str!("deft.peft"),
    },
    LibraryFile {
        name: "delora",
        text: include_str!("delora.peft"),
    },
    LibraryFile {
        name: "dora",
        text: include_str!("dora.peft"),
    },
    LibraryFile {
        name: "dynamic_lora",
        text: include_str!("dynamic_lora.peft"),
    },
    LibraryFile {
        name: "eva",
        text: include_str!("eva.peft"),
    },
    LibraryFile {
        name: "fourierft",
        text: include_str!("fourierft.peft"),
    },
    LibraryFile {
        name: "frod",
        text: include_str!("frod.peft"),
    },
    LibraryFile {
        name: "glora",
        text: include_str!("glora.peft"),
    },
    LibraryFile {
        name: "gralora",
        text: include_str!("gralora.peft"),
    },
    LibraryFile {
        name: "hira",
        text: include_str!("hira.peft"),
    },
    LibraryFile {
        name: "hra",
        text: include_str!("hra.peft"),
    },
    LibraryFile {
        name: "ia3",
        text: include_str!("ia3.peft"),
    },
    LibraryFile {
        name: "kasa",
        text: include_str!("kasa.peft"),
    },
    LibraryFile {
        name: "lily",
        text: include_str!("lily.peft"),
    },
    LibraryFile {
        name: "loha",
        text: include_str!("loha.peft"),
    },
    LibraryFile {
        name: "lokr",
        text: include_str!("lokr.peft"),
    },
    LibraryFile {
        name: "lora",
        text: include_str!("lora.peft"),
    },
    LibraryFile {
        name: "lora_fa",
        text: include_str!("lora_fa.peft"),
    },
    LibraryFile {
        name: "lora_ga",
        text: include_str!("lora_ga.peft"),
    },
    LibraryFile {
        name: "mica",
        text: include_str!("mica.peft"),
    },
    LibraryFile {
        name: "miss",
        text: include_str!("miss.peft"),
    },
    LibraryFile {
        name: "monteclora",
        text: include_str!("monteclora.peft"),
    },
    LibraryFile {
        name: "norm_tuning",
        text: include_str!("norm_tuning.peft"),
    },
    LibraryFile {
        name: "oft",
        text: include_str!("oft.peft"),
    },
    LibraryFile {
        name: "osf",
        text: include_str!("osf.peft"),
    },
    LibraryFile {
        name: "p_tuning",
        text: include_str!("p_tuning.peft"),
    },
    LibraryFile {
        name: "peanut",
        text: include_str!("peanut.peft"),
    },
    LibraryFile {
        name: "pissa",
        text: include_str!("pissa.peft"),
    },
    LibraryFile {
        name: "prefix_tuning",
        text: include_str!("prefix_tuning.peft"),
    },
    LibraryFile {
        name: "prompt_tuning",
        text: include_str!("prompt_tuning.peft"),
    },
    LibraryFile {
        name: "psoft",
        text: include_str!("psoft.peft"),
    },
    LibraryFile {
        name: "pvera",
        text: include_str!("pvera.peft"),
    },
    LibraryFile {
        name: "qalora",
        text: include_str!("qalora.peft"),
    },
    LibraryFile {
        name: "randlora",
        text: include_str!("randlora.peft"),
    },
    LibraryFile {
        name: "road",
        text: include_str!("road.peft"),
    },
    LibraryFile {
        name: "shira",
        text: include_str!("shira.peft"),
    },
    LibraryFile {
        name: "supertuning",
        text: include_str!("supertuning.peft"),
    },
    LibraryFile {
        name: "tinylora",
        text: include_str!("tinylora.peft"),
    },
    LibraryFile {
        name: "trainable_tokens",
        text: include_str!("trainable_tokens.peft"),
    },
    LibraryFile {
        name: "unilora",
        text: include_str!("unilora.peft"),
    },
    LibraryFile {
        name: "vblora",
        text: include_str!("vblora.peft"),
    },
    LibraryFile {
        name: "velora",
        text: include_str!("velora.peft"),
    },
    LibraryFile {
        name: "vera",
        text: include_str!("vera.peft"),
    },
    LibraryFile {
        name: "waveft",
        text: include_str!("waveft.peft"),
    },
    LibraryFile {
        name: "xlora",
        text: include_str!("xlora.peft"),
    },
];

/// The methods behind the statement `train`, one for each layer kind.
pub static TRAIN: LibraryFile = LibraryFile {
    name: "train",
    text: include_str!("train.peft"),
};

/// The file that declares the method `name`.
pub fn find(name: &str) -> Option<&'static LibraryFile> {
    LIBRARY.iter().find(|file| file.name == name)
}

#[cfg(test)]
mod tests {
    use super::LIBRARY;
    use std::path::{Path, PathBuf};

    fn lines(text: &str) -> usize {
        let all = text.lines().map(str::trim);
        all.filter(|line| !line.is_empty() && !line.starts_with("//"))
            .count()
    }

    #[test]
    fn a_method_is_a_page() {
        for file in LIBRARY {
            assert!(
                lines(file.text) <= 40,
                "{}: {}",
                file.name,
                lines(file.text)
            );
        }
        let all: usize = LIBRARY.iter().map(|file| lines(file.text)).sum();
        assert!(all < 1500, "{all} lines");
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" && name != "stdlib" {
                sources(&path, found);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }

    /// What the compiler does follows from a method's mathematics, never from its name.
    #[test]
    fn no_source_names_a_method() {
        let mut found = Vec::new();
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        assert!(found.len() > 100);
        for path in found {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                for file in LIBRARY {
                    let named = line.contains(&format!("\"{}\"", file.name));
                    assert!(!named, "{}: {line}", path.display());
                }
            }
        }
    }
}
