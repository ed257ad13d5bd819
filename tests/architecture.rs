//! The floors: every import in `src` is read, and one from a higher floor fails; every file says what it is.
//!
//! Paths are found in the text, not by a parser: `crate::x`, `crate::{x, y}` and `super::super::x` that reaches the
//! root, outside comments. Deliberately absent: rules within a module.

#![cfg(not(target_arch = "wasm32"))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules stand on which floor; a module imports from its own floor or from below.
const FLOORS: &[&[&str]] = &[
    &["gpu", "shape", "dtype", "error", "host", "threads", "collections", "sort"],
    &["graph", "lower", "plan", "step", "read"],
    &["ops", "grad", "random"],
    &["layers", "losses", "metrics", "optimizers", "initializers", "choice"],
    &["model", "callbacks", "data", "io"],
    &["lib", "prelude"],
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files with their path below `src`, in order.
fn files() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![source()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name: Vec<_> = path.strip_prefix(source()).unwrap().iter().map(|p| p.to_string_lossy()).collect();
                found.push((name.join("/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The path of a file's module from the root; empty for the root.
fn module(file: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&"mod" | &"lib")) {
        parts.pop();
    }
    parts
}

/// The text without comments, of the same number of lines. A `//` within a string ends its line too, which loses
/// nothing: no path follows one.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that a path tail begins with: one, or each of a `{...}` at its outermost level.
fn heads(tail: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c| !is_word(c)).unwrap_or(text.len());
    let Some(group) = tail.strip_prefix('{') else { return vec![&tail[..word(tail)]] };
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = group[start..at].trim();
                if !item.is_empty() {
                    heads.push(&item[..word(item)]);
                }
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

/// Each name in the root that the text of a module names, with its line.
fn imports(module: &[&str], text: &str) -> Vec<(usize, String)> {
    let (text, mut found) = (code(text), Vec::new());
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let begins = |at: usize| !text[..at].ends_with(|c: char| is_word(c) || c == ':');
    for (at, root) in text.match_indices("crate::").filter(|&(at, _)| begins(at)) {
        found.extend(heads(&text[at + root.len()..]).into_iter().map(|name| (line(at), name.to_string())));
    }
    for (at, _) in text.match_indices("super::").filter(|&(at, _)| begins(at)) {
        let tail = text[at..].trim_start_matches("super::");
        let supers = (text.len() - at - tail.len()) / "super::".len();
        if supers >= module.len() {
            // A module within a file is one deeper than the file, so what is not a module of the root is its sibling.
            let names = heads(tail).into_iter().filter(|name| floor(name).is_some());
            found.extend(names.map(|name| (line(at), name.to_string())));
        }
    }
    found
}

/// What is wrong with the imports of one file.
fn violations(file: &str, text: &str) -> Vec<String> {
    let path = module(file);
    let own = path.first().copied().unwrap_or("lib");
    let Some(from) = floor(own) else { return vec![] };
    let upward = |(line, name): (usize, String)| {
        // What is no module is an export of the root itself.
        let to = floor(&name).unwrap_or(FLOORS.len() - 1);
        (to > from).then(|| format!("src/{file}:{line}: {own} (floor {from}) imports {name} (floor {to})"))
    };
    imports(&path, text).into_iter().filter_map(upward).collect()
}

#[test]
fn every_module_has_a_floor() {
    let modules: BTreeSet<String> =
        files().iter().map(|(file, _)| file.split('/').next().unwrap().trim_end_matches(".rs").to_string()).collect();
    for module in &modules {
        assert!(
            floor(module).is_some(),
            "the module {module} has no floor; add it to FLOORS in tests/architecture.rs, to the table in src/lib.rs \
             and to ARCHITECTURE.md"
        );
    }
    let listed: BTreeSet<String> = FLOORS.iter().flat_map(|floor| floor.iter().map(|m| m.to_string())).collect();
    assert_eq!(listed, modules, "FLOORS in tests/architecture.rs lists modules that do not exist, or one twice");
    assert_eq!(FLOORS.iter().map(|floor| floor.len()).sum::<usize>(), listed.len(), "a module stands on two floors");
}

#[test]
fn no_module_imports_from_a_higher_floor() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (file, text) in files() {
        seen += imports(&module(&file), &text).len();
        wrong.extend(violations(&file, &text));
    }
    assert!(seen > 200, "only {seen} imports were found; has the search gone blind?");
    assert!(wrong.is_empty(), "imports from a higher floor:\n{}", wrong.join("\n"));
}

#[test]
fn the_search_finds_every_form_of_import() {
    let text = "use crate::{\n    error::{Error, Result},\n    model::Fit,\n};\n// crate::data is only named here\n\
                fn f() { $crate::io::save(); crate::Result::Ok(()) }\nuse super::super::callbacks::{A, B};\n";
    let expected = [
        "src/graph/node.rs:1: graph (floor 1) imports model (floor 4)",
        "src/graph/node.rs:6: graph (floor 1) imports io (floor 4)",
        "src/graph/node.rs:6: graph (floor 1) imports Result (floor 5)",
        "src/graph/node.rs:7: graph (floor 1) imports callbacks (floor 4)",
    ];
    assert_eq!(violations("graph/node.rs", text), expected);
    assert_eq!(
        violations("plan.rs", "use super::{grad, graph};"),
        ["src/plan.rs:1: plan (floor 1) imports grad (floor 2)"]
    );
    assert!(violations("prelude.rs", text).is_empty());
}

#[test]
fn every_file_opens_with_what_it_is() {
    for (file, text) in files() {
        let words: usize = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .map(|line| line.trim_start_matches("//!").split_whitespace().count())
            .sum();
        assert!(words >= 5, "src/{file} opens with {words} words of //!: say what it is and why it is here");
    }
}
