//! Cases of the command line: files in a folder of their own, commands, and what the last one says.
//!
//! A `.case` file is read line by line:
//!
//! * `# …` says what the case is about.
//! * `> NAME` starts a text file; its lines follow up to the next `>` or `$` line.
//! * `> NAME: SOURCE` makes a file that is no text (see [`files`]).
//! * `$ peftc …` runs the command in the folder; all but the last must succeed. `$ alone peftc …`
//!   runs it with an empty environment, so that it finds no ONNX Runtime.
//!
//! The file `.stderr` beside the case holds the last command's exit status and stderr. The name of
//! a case starts with the code that it is for.

mod files;
mod models;

use crate::check::compare_with_recorded;
use libtest_mimic::Failed;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A case as read.
#[derive(Default)]
struct Case<'a> {
    files: Vec<(&'a str, Content<'a>)>,
    commands: Vec<&'a str>,
}

enum Content<'a> {
    Text(String),
    Made(&'a str),
}

/// Runs one case and compares what it says.
pub fn check_case(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path)?;
    let case = Case::read(&text)?;
    let outer = tempfile::tempdir()?;
    // Cases may put something outside of their folder.
    let folder = outer.path().join("work");
    std::fs::create_dir(&folder)?;
    for (name, content) in &case.files {
        files::make(&folder, name, content)?;
    }
    let (last, before) = case.commands.split_last().ok_or("a case without `$`")?;
    for command in before {
        let (status, said) = run(command, &folder)?;
        if status != 0 {
            return Err(format!("`{command}` ends with {status}:\n{said}").into());
        }
    }
    let (status, said) = run(last, &folder)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let code = code_of(&name);
    if !said.lines().any(|line| line == code) {
        return Err(format!("`{last}` does not report {code}:\n{said}").into());
    }
    let said = without_what_differs(&said, outer.path());
    compare_with_recorded(path, &format!("exit status {status}\n\n{said}"))
}

/// The code that a case is for.
pub fn code_of(name: &str) -> &str {
    name.split(['_', '.']).next().unwrap_or_default()
}

impl<'a> Case<'a> {
    fn read(text: &'a str) -> Result<Case<'a>, String> {
        let mut case = Case::default();
        for line in text.lines() {
            if let Some(file) = line.strip_prefix("> ") {
                let made = file.split_once(": ");
                let (name, content) = made.map_or_else(
                    || (file, Content::Text(String::new())),
                    |(name, source)| (name, Content::Made(source)),
                );
                case.files.push((name, content));
            } else if let Some(command) = line.strip_prefix("$ ") {
                case.commands.push(command);
            } else if let (Some((_, Content::Text(text))), true) =
                (case.files.last_mut(), case.commands.is_empty())
            {
                text.push_str(line);
                text.push('\n');
            } else if !line.is_empty() && !line.starts_with('#') {
                return Err(format!("line belongs to nothing: {line}"));
            }
        }
        Ok(case)
    }
}

/// The status and stderr of a command. What needs ONNX Runtime finds it installed.
fn run(command: &str, folder: &Path) -> Result<(i32, String), Failed> {
    let (alone, words) = match command.strip_prefix("alone ") {
        Some(rest) => (true, rest),
        None => (false, command),
    };
    let mut words = words.split_whitespace();
    if words.next() != Some("peftc") {
        return Err(format!("`{command}` is no `peftc …`").into());
    }
    let mut peftc = peftc(folder);
    if alone {
        peftc
            .env_clear()
            .env("XDG_DATA_HOME", folder)
            .env("PATH", folder);
    } else if words.clone().any(|word| ["run", "train"].contains(&word)) {
        install_runtime();
    }
    let output = peftc.args(words).output()?;
    let status = output.status.code().ok_or("it was ended by a signal")?;
    let said = String::from_utf8(output.stderr)?;
    Ok((
        status,
        said.lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect(),
    ))
}

fn peftc(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.current_dir(folder);
    for name in ["LC_ALL", "LC_CTYPE", "LANG", "ORT_LOG"] {
        command.env_remove(name);
    }
    command
}

fn install_runtime() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let mut install = peftc(Path::new("."));
        let output = install
            .args(["runtime", "install"])
            .output()
            .expect("peftc starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    });
}

/// Replaces what is not peftc's to say: paths of this machine, and the words of ONNX Runtime and
/// of the loader, which change with their versions.
fn without_what_differs(said: &str, folder: &Path) -> String {
    const FOREIGN: [&str; 3] = [
        "note: ONNX Runtime says: ",
        "note: the loader says: ",
        "note: tried ",
    ];
    let said = said.replace(&*folder.to_string_lossy(), "FOLDER");
    let mut kept = String::new();
    let mut inside = false;
    for line in said.lines() {
        // Entries of the help go on at this indentation; foreign words are the last of them.
        inside = inside && line.starts_with("        ");
        if inside {
            continue;
        }
        let foreign = FOREIGN
            .iter()
            .find_map(|start| Some((line.find(start)?, start)));
        match foreign {
            Some((at, start)) => {
                inside = true;
                let line = format!("{}…\n", &line[..at + start.len()]);
                // How many places there are depends on the machine.
                if !kept.ends_with(&line) {
                    kept.push_str(&line);
                }
            }
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}
