//! The numbers of fields, from `table.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A field of JSON.
    Named {
        name: &'static str,
        /// Absence and zero differ: a pointer in Go.
        keeps_zero: bool,
    },
    /// A message whose fields belong to the parent in JSON.
    Inline(&'static str),
}

/// The fields of a message by number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry(&'static [(u32, Field)]);

impl Entry {
    pub fn field(self, number: u32) -> Option<Field> {
        let index = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.0[index].1)
    }
}

struct Table {
    fields: Vec<(u32, Field)>,
    messages: HashMap<&'static str, (usize, usize)>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| load(include_str!("table.txt")));

/// The message of a type, named as in the schema.
pub fn by_name(name: &str) -> Option<Entry> {
    let &(first, last) = TABLE.messages.get(name)?;
    Some(Entry(&TABLE.fields[first..last]))
}

fn load(text: &'static str) -> Table {
    let mut table = Table {
        fields: Vec::new(),
        messages: HashMap::new(),
    };
    let mut current = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ').and_then(|rest| rest.split_once(' ')) {
            None => {
                let first = table.fields.len();
                table.messages.insert(line, (first, first));
                current = Some(line);
            }
            Some((number, name)) => {
                let number = number.parse().expect("the generator writes numbers");
                let field = match (name.strip_prefix('*'), name.strip_suffix('?')) {
                    (Some(inline), _) => Field::Inline(inline),
                    (None, Some(name)) => Field::Named {
                        name,
                        keeps_zero: true,
                    },
                    (None, None) => Field::Named {
                        name,
                        keeps_zero: false,
                    },
                };
                table.fields.push((number, field));
                if let Some(range) = current.and_then(|name| table.messages.get_mut(name)) {
                    range.1 = table.fields.len();
                }
            }
        }
    }
    table
}
