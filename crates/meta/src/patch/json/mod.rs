//! JSON patch (RFC 6902), `application/json-patch+json`. Messages follow the library upstream uses
//! (`evanphx/json-patch`), which also lets negative indices count from the end.

#[cfg(test)]
mod tests;

use serde_json::Value;

/// Upstream refuses longer patches.
pub const MAX_OPERATIONS: usize = 10_000;

/// All copies of a patch together make a document at most this many bytes longer.
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// The parser reads no document that is nested deeper, so none may become so.
pub const MAX_DEPTH: usize = 127;

/// While operations follow each other the document may be deeper, but not so deep that recursion becomes a danger.
const MAX_DEPTH_BETWEEN: usize = 1000;

/// Why a JSON patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// Not a list of operations.
    #[error("json patch: {0}")]
    Malformed(String),
    /// Too many operations.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// The place does not exist.
    #[error("{operation} operation does not apply: doc is missing {what}: {path:?}: missing value")]
    Missing {
        /// Name of the operation.
        operation: &'static str,
        /// What is missing, `path` or `key`.
        what: &'static str,
        /// Where.
        path: String,
    },
    /// An index is out of range or not a number.
    #[error("{operation} operation does not apply: {path:?}: invalid array index {index:?}")]
    Index {
        /// Name of the operation.
        operation: &'static str,
        /// Where.
        path: String,
        /// The last segment of the path.
        index: String,
    },
    /// Copies make the document too long.
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {MAX_COPIED}"
    )]
    Copied(usize),
    /// Operations nest the document too deeply.
    #[error("json patch: the document would be nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The value tested for is another.
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
}

/// Applies the operations in order. On an error `target` is left as the operations before it made it.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), JsonPatchError> {
    let operations = patch
        .as_array()
        .ok_or_else(|| JsonPatchError::Malformed("expected a list of operations".to_owned()))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(JsonPatchError::TooMany(operations.len()));
    }
    let mut document = Document {
        depth: depth(target),
        root: target,
        copied: 0,
    };
    operations
        .iter()
        .try_for_each(|operation| document.apply(operation))?;
    if document.depth > MAX_DEPTH && depth(document.root) > MAX_DEPTH {
        return Err(JsonPatchError::TooDeep);
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What is patched.
struct Document<'v> {
    root: &'v mut Value,
    /// It is nested at most this deep.
    depth: usize,
    /// Bytes that copies have added.
    copied: usize,
}

impl Document<'_> {
    fn apply(&mut self, operation: &Value) -> Result<(), JsonPatchError> {
        let text = |key: &str| operation.get(key).and_then(Value::as_str);
        let malformed = |what: &str| JsonPatchError::Malformed(format!("{what} in operation {operation}"));
        let path = Pointer::parse(text("path").ok_or_else(|| malformed("no path"))?)
            .ok_or_else(|| malformed("invalid path"))?;
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        let from = || {
            let text = text("from").ok_or_else(|| malformed("no from"))?;
            Pointer::parse(text).ok_or_else(|| malformed("invalid from"))
        };
        match text("op") {
            Some("add") => {
                let value = value();
                let depth = depth(&value);
                path.add(self.root, value, "add")?;
                self.deepened(&path, depth)
            }
            Some("remove") => path.remove(self.root, "remove").map(drop),
            Some("replace") => {
                let value = value();
                let depth = depth(&value);
                path.replace(self.root, value)?;
                self.deepened(&path, depth)
            }
            Some("move") => {
                let value = from()?.remove(self.root, "move")?;
                path.add(self.root, value, "move")?;
                self.deepened(&path, self.depth)
            }
            Some("copy") => {
                let from = from()?;
                let value = from.get(self.root).cloned();
                let value = value.ok_or_else(|| from.missing("copy", "path"))?;
                self.copied += value.to_string().len();
                if self.copied > MAX_COPIED {
                    return Err(JsonPatchError::Copied(self.copied));
                }
                path.add(self.root, value, "copy")?;
                self.deepened(&path, self.depth)
            }
            Some("test") => {
                // An absent value passes for null, as upstream.
                if path.get(self.root).unwrap_or(&Value::Null) == &value() {
                    Ok(())
                } else {
                    Err(JsonPatchError::TestFailed(path.text))
                }
            }
            _ => Err(malformed("unexpected op")),
        }
    }

    /// A value of at most this depth has come to a path. The bound is cheap and grows with every move; only when it
    /// passes the limit is the document measured.
    fn deepened(&mut self, path: &Pointer, depth_of_value: usize) -> Result<(), JsonPatchError> {
        self.depth = self.depth.max(path.segments.len() + depth_of_value);
        if self.depth > MAX_DEPTH_BETWEEN {
            self.depth = depth(self.root);
        }
        if self.depth > MAX_DEPTH_BETWEEN {
            return Err(JsonPatchError::TooDeep);
        }
        Ok(())
    }
}

/// A JSON pointer (RFC 6901).
struct Pointer {
    text: String,
    segments: Vec<String>,
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        let segments = match text {
            "" => Vec::new(),
            _ => text
                .strip_prefix('/')?
                .split('/')
                .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
                .collect(),
        };
        Some(Self {
            text: text.to_owned(),
            segments,
        })
    }

    fn missing(&self, operation: &'static str, what: &'static str) -> JsonPatchError {
        JsonPatchError::Missing {
            operation,
            what,
            path: self.text.clone(),
        }
    }

    fn get<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.segments.iter().try_fold(root, |value, segment| match value {
            Value::Object(object) => object.get(segment),
            Value::Array(list) => list.get(index(segment, list.len())?),
            _ => None,
        })
    }

    /// The container of the value, and the last segment; `None` is the root itself.
    fn parent<'v>(
        &self,
        root: &'v mut Value,
        operation: &'static str,
    ) -> Result<Option<(&'v mut Value, &str)>, JsonPatchError> {
        let Some((last, above)) = self.segments.split_last() else {
            return Ok(None);
        };
        let mut value = root;
        for segment in above {
            let below = match value {
                Value::Object(object) => object.get_mut(segment),
                Value::Array(list) => index(segment, list.len()).and_then(|i| list.get_mut(i)),
                _ => None,
            };
            value = below.ok_or_else(|| self.missing(operation, "path"))?;
        }
        Ok(Some((value, last)))
    }

    fn bad_index(&self, operation: &'static str, index: &str) -> JsonPatchError {
        JsonPatchError::Index {
            operation,
            path: self.text.clone(),
            index: index.to_owned(),
        }
    }

    fn add(&self, root: &mut Value, new: Value, operation: &'static str) -> Result<(), JsonPatchError> {
        match self.parent(root, operation)? {
            None => *root = new,
            Some((Value::Object(object), key)) => {
                object.insert(key.to_owned(), new);
            }
            Some((Value::Array(list), "-")) => list.push(new),
            Some((Value::Array(list), key)) => {
                // One past the end is a place to add to.
                let at = index(key, list.len() + 1).ok_or_else(|| self.bad_index(operation, key))?;
                list.insert(at, new);
            }
            Some(_) => return Err(self.missing(operation, "path")),
        }
        Ok(())
    }

    fn remove(&self, root: &mut Value, operation: &'static str) -> Result<Value, JsonPatchError> {
        match self.parent(root, operation)? {
            None => Ok(root.take()),
            Some((Value::Object(object), key)) => {
                object.remove(key).ok_or_else(|| self.missing(operation, "path"))
            }
            Some((Value::Array(list), key)) => {
                let at = index(key, list.len()).ok_or_else(|| self.bad_index(operation, key))?;
                Ok(list.remove(at))
            }
            Some(_) => Err(self.missing(operation, "path")),
        }
    }

    fn replace(&self, root: &mut Value, new: Value) -> Result<(), JsonPatchError> {
        let place = match self.parent(root, "replace")? {
            None => {
                *root = new;
                return Ok(());
            }
            Some((Value::Object(object), key)) => object.get_mut(key),
            Some((Value::Array(list), key)) => index(key, list.len()).and_then(|i| list.get_mut(i)),
            Some(_) => None,
        };
        *place.ok_or_else(|| self.missing("replace", "key"))? = new;
        Ok(())
    }
}

/// A list index below `length`; a negative one counts from the end, `-1` being the last place.
fn index(segment: &str, length: usize) -> Option<usize> {
    if segment.len() > 1 && segment.starts_with('0') {
        return None;
    }
    let index: i64 = segment.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index + length } else { index };
    usize::try_from(index).ok().filter(|_| index < length)
}
