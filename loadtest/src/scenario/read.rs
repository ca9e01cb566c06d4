//! Reads a TOML document key by key and reports every error with its line and field; serde stops at the first error.

use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive};

use toml::de::{DeTable, DeValue};

type Value<'t> = toml::Spanned<DeValue<'t>>;

/// The errors of a document.
pub(super) struct Errors<'t> {
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
}

impl<'t> Errors<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: RefCell::default() }
    }

    fn add(&self, offset: usize, message: String) {
        let line = 1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        self.found.borrow_mut().push((line, message));
    }

    /// The messages, ordered by line.
    pub(super) fn into_lines(self) -> Vec<String> {
        let mut found = self.found.into_inner();
        found.sort();
        found.into_iter().map(|(line, message)| format!("line {line}: {message}")).collect()
    }
}

/// One table of the document. A key that is never read is an error (`finish`).
pub(super) struct Table<'t> {
    errors: &'t Errors<'t>,
    /// Ends with a dot; empty for the document.
    path: String,
    offset: usize,
    entries: &'t DeTable<'t>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'t> Table<'t> {
    pub(super) fn document(errors: &'t Errors<'t>, entries: &'t DeTable<'t>) -> Self {
        Self { errors, path: String::new(), offset: 0, entries, known: RefCell::default() }
    }

    fn entry(&self, key: &'static str) -> Option<&'t Value<'t>> {
        self.known.borrow_mut().insert(key);
        self.entries.get(key)
    }

    /// Reports an error at the key if it exists, else at its table.
    pub(super) fn error(&self, key: &str, message: &str) {
        let offset = self.entries.get(key).map_or(self.offset, |value| value.span().start);
        self.errors.add(offset, format!("{}{key} {message}", self.path));
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    pub(super) fn is_list(&self, key: &'static str) -> bool {
        self.entry(key).is_some_and(|value| value.get_ref().is_array())
    }

    /// Reports an absent required key. The returned default is never used: the document has an error.
    pub(super) fn required<T: Default>(&self, key: &'static str, read: impl Fn(&Self, &'static str) -> Option<T>) -> T {
        if !self.has(key) {
            self.error(key, "is missing");
            return T::default();
        }
        read(self, key).unwrap_or_default()
    }

    fn one<T>(&self, key: &'static str, read: impl Fn(&DeValue<'t>) -> Result<T, String>) -> Option<T> {
        let value = self.entry(key)?;
        read(value.get_ref()).map_err(|message| self.error(key, &message)).ok()
    }

    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.one(key, |value| integer(value, &range))
    }

    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        self.one(key, |value| number(value, &range))
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.one(key, |value| {
            value.as_bool().ok_or_else(|| format!("must be true or false, is a {}", value.type_str()))
        })
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.one(key, |value| {
            value.as_str().map(str::to_owned).ok_or_else(|| format!("must be a string, is a {}", value.type_str()))
        })
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, options: &[(&str, T)]) -> Option<T> {
        self.one(key, |value| {
            let found = value.as_str().and_then(|text| options.iter().find(|(name, _)| *name == text));
            found.map(|(_, option)| *option).ok_or_else(|| {
                let names: Vec<_> = options.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                format!("must be {}", names.join(" or "))
            })
        })
    }

    /// One error per bad element.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        length: RangeInclusive<usize>,
        read: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(values) = self.entry(key)?.get_ref().as_array() else {
            self.error(key, "must be a list");
            return None;
        };
        if !length.contains(&values.len()) {
            let message = format!("must have {}..={} elements, has {}", length.start(), length.end(), values.len());
            self.error(key, &message);
        }
        let mut list = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match read(value.get_ref()) {
                Ok(element) => list.push(element),
                Err(message) => self.errors.add(value.span().start, format!("{}{key}[{index}] {message}", self.path)),
            }
        }
        Some(list)
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Table<'t>> {
        let value = self.entry(key)?;
        let table = self.subtable(key.to_owned(), value);
        if table.is_none() {
            self.error(key, &format!("must be a table, is a {}", value.get_ref().type_str()));
        }
        table
    }

    /// The tables `[[key]]`, at most `most` of them.
    pub(super) fn tables(&self, key: &'static str, most: usize) -> Vec<Table<'t>> {
        let Some(value) = self.entry(key) else { return Vec::new() };
        let Some(values) = value.get_ref().as_array() else {
            self.error(key, &format!("must be written as [[{}{key}]]", self.path));
            return Vec::new();
        };
        if values.len() > most {
            self.error(key, &format!("must not be given more than {most} times"));
        }
        let tables = values.iter().enumerate().map(|(index, value)| {
            let table = self.subtable(format!("{key}[{index}]"), value);
            if table.is_none() {
                self.errors.add(value.span().start, format!("{}{key}[{index}] must be a table", self.path));
            }
            table
        });
        tables.flatten().take(most).collect()
    }

    fn subtable(&self, name: String, value: &'t Value<'t>) -> Option<Table<'t>> {
        Some(Table {
            errors: self.errors,
            path: format!("{}{name}.", self.path),
            offset: value.span().start,
            entries: value.get_ref().as_table()?,
            known: RefCell::default(),
        })
    }

    /// Reports keys that were never read: a misspelt key would silently keep its default.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        for key in self.entries.keys().filter(|key| !known.contains(key.get_ref().as_ref())) {
            let names: Vec<_> = known.iter().copied().collect();
            let message = format!("{}{} is unknown; known here: {}", self.path, key.get_ref(), names.join(", "));
            self.errors.add(key.span().start, message);
        }
    }
}

pub(super) fn integer(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let Some(integer) = value.as_integer() else {
        return Err(format!("must be an integer, is a {}", value.type_str()));
    };
    match i128::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if (i128::from(*range.start())..=i128::from(*range.end())).contains(&number) => {
            u64::try_from(number).map_err(|_| "must not be negative".to_owned())
        }
        _ => Err(format!("must be {}..={}, is {integer}", range.start(), range.end())),
    }
}

pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let text = match value {
        DeValue::Float(float) => float.as_str(),
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        _ => return Err(format!("must be a number, is a {}", value.type_str())),
    };
    match text.parse::<f64>() {
        // A range contains neither NaN nor infinity.
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be {}..={}, is {text}", range.start(), range.end())),
    }
}
