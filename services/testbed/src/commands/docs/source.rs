//! Structs, enums and their doc comments, read from source text that rustfmt has formatted.
//!
//! The documents need the comments that the readers of the code see. Serde has the keys and defaults, and not these comments.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Source {
    items: BTreeMap<String, Item>,
}

/// A struct or an enum.
#[derive(Debug, Default)]
pub struct Item {
    pub doc: String,
    pub fields: Vec<Field>,
    pub variants: Vec<Variant>,
    lowercase: bool,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    /// As in the source.
    pub kind: String,
    pub doc: String,
}

#[derive(Debug)]
pub struct Variant {
    /// As serde spells it.
    pub name: String,
    pub doc: String,
}

impl Source {
    /// The first definition of a name counts.
    pub fn read(texts: &[&str]) -> Self {
        let mut source = Self::default();
        for text in texts {
            source.add(text);
        }
        source
    }

    pub fn item(&self, name: &str) -> Option<&Item> {
        self.items.get(name)
    }

    fn add(&mut self, text: &str) {
        let mut open: Option<(String, Item)> = None;
        let (mut doc, mut lowercase) = (Vec::new(), false);
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(comment) = trimmed.strip_prefix("///") {
                doc.push(comment.trim());
                continue;
            }
            if trimmed.starts_with("#[") {
                lowercase |= trimmed.contains("rename_all = \"lowercase\"");
                continue;
            }
            let words = std::mem::take(&mut doc).join(" ");
            match &mut open {
                None => {
                    if let Some(name) = opened(line) {
                        let item = Item { doc: words, lowercase, ..Item::default() };
                        open = Some((name.to_owned(), item));
                    }
                }
                Some((name, item)) => {
                    if line == "}" {
                        let item = std::mem::take(item);
                        self.items.entry(std::mem::take(name)).or_insert(item);
                        open = None;
                    } else {
                        item.line(trimmed, words);
                    }
                }
            }
            lowercase = false;
        }
    }
}

/// The name of the struct or enum whose body begins in this line.
fn opened(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) "))?;
    let rest = rest.strip_prefix("struct ").or_else(|| rest.strip_prefix("enum "))?;
    rest.strip_suffix(" {")
}

impl Item {
    fn line(&mut self, line: &str, doc: String) {
        if let Some((name, kind)) = field(line) {
            self.fields.push(Field { name: name.to_owned(), kind: kind.to_owned(), doc });
            return;
        }
        let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            return;
        }
        // `Name { a: A, b: B },`
        for part in line.split_once('{').map_or("", |(_, inside)| inside.trim_end_matches([',', '}', ' '])).split(',') {
            if let Some((name, kind)) = field(&format!("{},", part.trim())) {
                self.fields.push(Field { name: name.to_owned(), kind: kind.to_owned(), doc: String::new() });
            }
        }
        let name = if self.lowercase { name.to_lowercase() } else { name };
        self.variants.push(Variant { name, doc });
    }
}

/// `pub name: Kind,`
fn field(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
    let (name, kind) = line.strip_suffix(',')?.split_once(": ")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some((name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_variants_and_comments_are_read() {
        let text = "/// Of it.\npub struct Config {\n    /// How long,\n    /// in ms.\n    #[serde(default)]\n    pub wait_ms: u64,\n    \
                    pub mode: Mode,\n}\n\n#[serde(rename_all = \"lowercase\")]\npub enum Mode {\n    /// Not at all.\n    Off,\n    \
                    Law { base_ms: f64, spread: f64 },\n}\n";
        let source = Source::read(&[text]);
        let config = source.item("Config").unwrap();
        assert_eq!(config.doc, "Of it.");
        assert_eq!(config.fields[0].doc, "How long, in ms.");
        assert_eq!((config.fields[1].name.as_str(), config.fields[1].kind.as_str()), ("mode", "Mode"));
        let mode = source.item("Mode").unwrap();
        assert_eq!((mode.variants[0].name.as_str(), mode.variants[0].doc.as_str()), ("off", "Not at all."));
        assert_eq!(mode.fields.len(), 2);
    }
}
