//! No two sibling modules depend on each other, directly or through other siblings, in any crate of the workspace.
//!
//! The check reads the sources: paths that begin with `crate` or `super`, with the re-exports that they go through. A parent may name its
//! children, and a child its parent. Code under `#[cfg(test)]` does not count.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

/// From the crate's root, which is the empty path.
type ModulePath = Vec<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// A path that a module names.
#[derive(Debug)]
struct Reference {
    module: ModulePath,
    target: Vec<String>,
    /// `file:line: path`
    place: String,
}

#[derive(Debug, Default)]
struct Crate {
    modules: BTreeSet<ModulePath>,
    references: Vec<Reference>,
    /// What `use` declarations bring into a module, by the name that they give it.
    imports: BTreeMap<(ModulePath, String), Vec<String>>,
}

#[test]
fn sibling_modules_have_no_cycles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let services = fs::read_dir(root.join("services")).unwrap().map(|entry| entry.unwrap().path());
    let mut crates: Vec<PathBuf> = services.chain([root.join("loadtest")]).collect();
    crates.sort();
    let mut cycles = Vec::new();
    for path in crates {
        for file in ["src/lib.rs", "src/main.rs"].map(|file| path.join(file)).into_iter().filter(|file| file.exists()) {
            let name = path.file_name().unwrap().display().to_string();
            cycles.extend(Crate::read(&file, &root).cycles().into_iter().map(|cycle| format!("{name}{cycle}")));
        }
    }
    assert!(cycles.is_empty(), "{} cycles among sibling modules:\n\n{}", cycles.len(), cycles.join("\n"));
}

#[test]
fn a_cycle_is_found_through_a_re_export_and_tests_do_not_count() {
    let root = tempfile::TempDir::new().unwrap();
    let cycles = |of_b: &str| {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::{A, inner::*};"),
            ("a.rs", "use crate::b::B; pub struct A(B); mod inner { /* crate::b */ }"),
            ("b.rs", of_b),
        ];
        for (name, text) in files {
            fs::write(root.path().join(name), text).unwrap();
        }
        Crate::read(&root.path().join("lib.rs"), root.path()).cycles()
    };
    let found = cycles("//! crate::A\nuse crate::{A as Other};\npub struct B;");
    assert_eq!(found, [": a → b\n  a.rs:1: crate::b::B\n  b.rs:2: crate::A\n"]);
    assert_eq!(cycles("pub struct B; fn f() -> crate::a::A { todo!() }").len(), 1);
    let harmless =
        "pub struct B; const C: &str = \"crate::A\"; #[cfg(test)] mod tests { use crate::A; } const D: char = '\\'';";
    assert_eq!(cycles(harmless), Vec::<String>::new());
}

impl Crate {
    fn read(file: &Path, root: &Path) -> Self {
        let mut read = Self::default();
        let mut pending = vec![(file.to_owned(), file.parent().unwrap().to_owned(), ModulePath::new())];
        while let Some((file, directory, module)) = pending.pop() {
            let tokens = without_tests(tokens(&fs::read_to_string(&file).unwrap()));
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            for child in read.add_module(&tokens, module.clone(), &shown) {
                let mut of_child = directory.clone();
                of_child.extend(&child[module.len()..]);
                let flat = of_child.with_extension("rs");
                let file = if flat.exists() { flat } else { of_child.join("mod.rs") };
                assert!(file.exists(), "{shown}: no file of module {}", child.join("::"));
                pending.push((file, of_child, child));
            }
        }
        read
    }

    /// Returns the children that are in files of their own.
    fn add_module(&mut self, tokens: &[Token], module: ModulePath, file: &str) -> Vec<ModulePath> {
        let mut children = Vec::new();
        let mut at = 0;
        self.modules.insert(module.clone());
        while let Some(token) = tokens.get(at) {
            let text = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text.as_str());
            let child = || [module.as_slice(), &[text(1).to_owned()]].concat();
            match token.text.as_str() {
                "mod" if text(2) == ";" => {
                    children.push(child());
                    at += 3;
                }
                "mod" if text(2) == "{" => {
                    let end = closing(tokens, at + 2);
                    children.extend(self.add_module(&tokens[at + 3..end], child(), file));
                    at = end;
                }
                "use" => {
                    let end = (at..tokens.len()).find(|&end| tokens[end].text == ";").unwrap_or(tokens.len());
                    self.add_use(&tokens[at + 1..end], &mut 0, &[], &module, file);
                    at = end;
                }
                "crate" | "super" if text(1) == "::" && text(2) != "(" => {
                    let mut end = at + 1;
                    while tokens.get(end).is_some_and(|t| t.text == "::") && is_name(tokens.get(end + 1)) {
                        end += 2;
                    }
                    let path = tokens[at..end].iter().map(|token| token.text.clone()).filter(|text| text != "::");
                    self.add_reference(path.collect(), token.line, &module, file);
                    at = end;
                }
                _ => at += 1,
            }
        }
        children
    }

    fn add_use(&mut self, tokens: &[Token], at: &mut usize, before: &[String], module: &ModulePath, file: &str) {
        let mut path = before.to_vec();
        while let Some(token) = tokens.get(*at) {
            match token.text.as_str() {
                "{" => {
                    *at += 1;
                    while tokens.get(*at).is_some_and(|token| token.text != "}") {
                        self.add_use(tokens, at, &path, module, file);
                        if tokens.get(*at).is_some_and(|token| token.text == ",") {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    return;
                }
                "," | "}" => break,
                "as" => {
                    *at += 1;
                    let name = tokens[*at].text.clone();
                    *at += 1;
                    return self.add_import(path, name, token.line, module, file);
                }
                "::" => {}
                _ => path.push(token.text.clone()),
            }
            *at += 1;
        }
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let line = tokens[at.saturating_sub(1)].line;
        let name = path.last().cloned().unwrap_or_default();
        self.add_import(path, name, line, module, file);
    }

    fn add_import(&mut self, path: Vec<String>, name: String, line: usize, module: &ModulePath, file: &str) {
        if name == "*" {
            // Which names it brings is not known.
        } else if let Some(target) = absolute(&path, module) {
            self.imports.insert((module.clone(), name), target);
        } else if path.len() > 1 {
            // Of a child, or of another crate.
            self.imports.insert((module.clone(), name), [module.as_slice(), &path].concat());
        }
        self.add_reference(path, line, module, file);
    }

    fn add_reference(&mut self, path: Vec<String>, line: usize, module: &ModulePath, file: &str) {
        if let Some(target) = absolute(&path, module) {
            let place = format!("{file}:{line}: {}", path.join("::"));
            self.references.push(Reference { module: module.clone(), target, place });
        }
    }

    /// The module that has the item, seen through re-exports.
    fn module_of(&self, target: &[String]) -> ModulePath {
        let mut target = target.to_vec();
        // A chain of re-exports ends, but one that is wrong might not.
        for _ in 0..16 {
            let known = (0..=target.len()).rev().find(|&len| self.modules.contains(&target[..len])).unwrap_or(0);
            let name = target.get(known).cloned().unwrap_or_default();
            match self.imports.get(&(target[..known].to_vec(), name)) {
                Some(import) if self.modules.contains(&import[..1.min(import.len())]) && *import != target => {
                    target = [import.as_slice(), target.get(known + 1..).unwrap_or_default()].concat();
                }
                _ => return target[..known].to_vec(),
            }
        }
        Vec::new()
    }

    fn cycles(&self) -> Vec<String> {
        // Parent → sibling → sibling that it names → where.
        let mut levels: BTreeMap<ModulePath, BTreeMap<String, BTreeMap<String, &str>>> = BTreeMap::new();
        for Reference { module, target, place } in &self.references {
            let target = self.module_of(target);
            let shared = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(shared), target.get(shared)) {
                let level = levels.entry(module[..shared].to_vec()).or_default();
                level.entry(from.clone()).or_default().entry(to.clone()).or_insert(place);
            }
        }
        let mut found = Vec::new();
        for (parent, level) in &levels {
            let mut reported = BTreeSet::new();
            for start in level.keys() {
                let Some(cycle) = shortest_cycle(level, start) else { continue };
                let members: BTreeSet<String> = cycle.iter().cloned().collect();
                if reported.insert(members) {
                    let next = cycle.iter().cycle().skip(1);
                    let lines = cycle.iter().zip(next).map(|(from, to)| format!("  {}\n", level[from][to]));
                    let parent: String = parent.iter().map(|name| format!("::{name}")).collect();
                    found.push(format!("{parent}: {}\n{}", cycle.join(" → "), lines.collect::<String>()));
                }
            }
        }
        found
    }
}

fn shortest_cycle(level: &BTreeMap<String, BTreeMap<String, &str>>, start: &String) -> Option<Vec<String>> {
    let mut queue = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        for next in level.get(&path[path.len() - 1]).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(path);
            }
            if seen.insert(next.clone()) {
                queue.push_back([path.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

/// `None`: the path does not begin with `crate`, `self` or `super`.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
        _ => None,
    }
}

fn is_name(token: Option<&Token>) -> bool {
    token.is_some_and(|token| token.text.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// The index of the brace or bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

/// Drops each item that has the attribute `#[cfg(test)]`: up to its `;`, or to the end of its block.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens.len() - at >= ATTRIBUTE.len()
            && tokens[at..].iter().zip(ATTRIBUTE).all(|(token, expected)| token.text == expected);
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut is_use = false;
        while at < tokens.len() && tokens[at].text != ";" {
            is_use |= tokens[at].text == "use";
            match tokens[at].text.as_str() {
                "[" | "(" => at = closing(&tokens, at),
                "{" => {
                    at = closing(&tokens, at);
                    if !is_use {
                        break;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        at += 1;
    }
    kept
}

/// Names, `::` and single signs; comments and the contents of texts are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut line, mut at) = (Vec::new(), 1, 0);
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied().unwrap_or_default();
        let start = at;
        if c.is_whitespace() {
            at += 1;
        } else if c == '/' && next == '/' {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if c == '/' && next == '*' {
            let mut depth = 0;
            loop {
                match chars.get(at..at + 2) {
                    Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
                    Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
                    Some(_) => at += 1,
                    None => at = chars.len(),
                }
                if depth == 0 || at == chars.len() {
                    break;
                }
            }
        } else if c == '"' {
            at = end_of_text(&chars, at);
        } else if c == '\'' {
            let is_char = next == '\\' || chars.get(at + 2) == Some(&'\'');
            at += if next == '\\' { 3 } else { 1 };
            at += chars[at..].iter().take_while(|c| is_char && **c != '\'').count() + usize::from(is_char);
        } else if c.is_alphanumeric() || c == '_' {
            at += chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            let word: String = chars[start..at].iter().collect();
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            if matches!(word.as_str(), "r" | "br" | "cr") && chars.get(at + hashes) == Some(&'"') {
                let end: Vec<char> = format!("\"{}", "#".repeat(hashes)).chars().collect();
                at += hashes + 1;
                at += chars[at..].windows(end.len()).take_while(|window| *window != end).count() + end.len();
            } else {
                tokens.push(Token { text: word, line });
            }
        } else {
            let text = if c == ':' && next == ':' { "::".to_owned() } else { c.to_string() };
            at += text.len().min(if text == "::" { 2 } else { 1 });
            tokens.push(Token { text, line });
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_text(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}
