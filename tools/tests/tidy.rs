//! Our own rules, checked: the import law of `docs/architecture.md`, module headers, where `unsafe` may be, and that every
//! purposeful difference from Kafka is listed in `docs/protocol.md`.
//!
//! The law is read from the table under "Who may import whom": a row names a module and the modules that it may use. An import
//! that is not in the table fails, and so does an entry that no import uses. Test code is exempt, files of it included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The only files that may contain `unsafe`.
const UNSAFE_FILES: [&str; 1] = ["engine/src/io/uring/driver.rs"];
/// Directory of a crate (also its name in the table) and its name in paths.
const CRATES: [(&str, &str); 3] = [
    ("engine", "milena_engine"),
    ("server", "milena_server"),
    ("tools", "milena"),
];

type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace holds this crate")
        .to_owned()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return found;
    };
    for entry in entries.map(|entry| entry.expect("a readable directory")) {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("below the root")
        .to_string_lossy()
        .into_owned()
}

fn source_files() -> impl Iterator<Item = (String, String)> {
    let files = CRATES
        .iter()
        .flat_map(|(directory, _)| rust_files(&root().join(directory).join("src")));
    files.map(|file| {
        (
            relative(&file),
            fs::read_to_string(&file).expect("a readable file"),
        )
    })
}

/// The source without comments, and without everything from the first `#[cfg(test)]` on.
fn code(source: &str) -> String {
    let before_tests = source.split("#[cfg(test)]").next().unwrap_or_default();
    let without_comment = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    before_tests
        .lines()
        .map(without_comment)
        .collect::<Vec<_>>()
        .join("\n")
}

/// `engine/src/log/segment.rs` is part of `engine::log`; `lib.rs` and `main.rs` are the crate itself.
fn module_of(file: &str) -> Option<String> {
    let (crate_name, rest) = file.split_once("/src/")?;
    let top = rest.split('/').next()?.trim_end_matches(".rs");
    Some(if matches!(top, "lib" | "main") {
        crate_name.to_owned()
    } else {
        format!("{crate_name}::{top}")
    })
}

/// Files that are compiled for tests only.
fn is_test_file(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    file.contains("/tests/") || name == "tests.rs" || name.starts_with("test_")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Names that follow `prefix::`, or stand in the first level of the braces that follow it.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        text.trim()
            .chars()
            .take_while(|c| is_word(*c))
            .collect::<String>()
    };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{prefix}::")) {
        if code[..at].ends_with(is_word) || code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + prefix.len() + 2..];
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0usize, String::new());
        for c in list.chars() {
            match c {
                '}' | ',' if depth == 0 => {
                    names.insert(word(&item));
                    item.clear();
                    if c == '}' {
                        break;
                    }
                    continue;
                }
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            item.push(c);
        }
    }
    names.remove("");
    names
}

fn actual_imports() -> Imports {
    let files: Vec<(String, String)> = source_files().filter(|(file, _)| !is_test_file(file)).collect();
    let known: BTreeSet<String> = files.iter().filter_map(|(file, _)| module_of(file)).collect();
    let mut imports = Imports::new();
    for (file, source) in &files {
        let module = module_of(file).expect("it is below src");
        let code = code(source);
        for (directory, path_name) in CRATES {
            let prefix = if file.starts_with(&format!("{directory}/")) {
                "crate"
            } else {
                path_name
            };
            for name in names_after(&code, prefix) {
                // What a crate defines or re-exports at its root counts as the crate.
                let target = format!("{directory}::{name}");
                let target = if known.contains(&target) {
                    target
                } else {
                    directory.to_owned()
                };
                if target != module {
                    imports.entry(module.clone()).or_default().insert(target);
                }
            }
        }
    }
    imports
}

fn table() -> Imports {
    let page = fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let law = page
        .split("## Who may import whom")
        .nth(1)
        .expect("the section with the table");
    let law = law.split("\n## ").next().unwrap_or_default();
    let rows = law.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let used = cells[1]
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned());
        (
            cells[0].trim_matches('`').to_owned(),
            used.filter(|name| !name.is_empty()).collect(),
        )
    })
    .collect()
}

fn pairs(imports: &Imports) -> BTreeSet<String> {
    imports
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| format!("{from} uses {to}")))
        .collect()
}

#[test]
fn imports_are_those_of_the_table_and_the_table_has_no_idle_entry() {
    let (actual, allowed) = (pairs(&actual_imports()), pairs(&table()));
    let forbidden: Vec<_> = actual.difference(&allowed).collect();
    let idle: Vec<_> = allowed.difference(&actual).collect();
    assert!(
        forbidden.is_empty() && idle.is_empty(),
        "not in the table: {forbidden:#?}\nused by nothing: {idle:#?}"
    );
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let folders = ["engine", "server", "tools", "benches", "fuzz"];
    let files = folders.iter().flat_map(|folder| rust_files(&root().join(folder)));
    let silent: Vec<_> = files
        .filter(|file| {
            !fs::read_to_string(file)
                .expect("a readable file")
                .starts_with("//!")
        })
        .map(|file| relative(&file))
        .collect();
    assert!(silent.is_empty(), "without a //! header: {silent:#?}");
}

#[test]
fn unsafe_code_is_only_where_it_is_declared_to_be() {
    let has_unsafe = |source: &str| code(source).split(|c| !is_word(c)).any(|word| word == "unsafe");
    let found: Vec<String> = source_files()
        .filter(|(_, source)| has_unsafe(source))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(found, UNSAFE_FILES);
}

#[test]
fn every_deviation_from_kafka_is_listed() {
    let page = fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md");
    let missing: Vec<String> = source_files()
        .filter(|(file, source)| source.contains("**Deviation:**") && !page.contains(&format!("`{file}`")))
        .map(|(file, _)| file)
        .collect();
    assert!(
        missing.is_empty(),
        "files with a deviation that docs/protocol.md does not name: {missing:#?}"
    );
}

#[test]
fn the_scanner_sees_imports_in_lists_and_in_paths() {
    let code = "use crate::{log::{Log, x}, units::Offset}; fn f() { crate::error::g(); other_crate::h() }";
    let expected = ["error", "log", "units"].map(str::to_owned);
    assert_eq!(names_after(code, "crate"), BTreeSet::from(expected));
}
