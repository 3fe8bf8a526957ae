//! What strategic merge and server-side apply must know about the place of a value in its type. The built-in kinds
//! answer from their table of facts, custom resources from their structural schema.

use serde_json::Value;

/// The schema of one place in an object. Cheap to copy: a handle into a table.
pub trait Schema: Copy {
    /// What belongs here.
    fn kind(self) -> Kind;

    /// The schema below a key of an object: a declared field, or the value of a map. `None` is an undeclared field.
    fn child(self, key: &str) -> Option<Self>;

    /// The schema of the elements of a list.
    fn element(self) -> Option<Self>;

    /// Whether an object here is replaced as one, never merged by server-side apply. Also true where the schema
    /// knows nothing of the content.
    fn is_atomic(self) -> bool;

    /// How server-side apply sees a list here.
    fn list_kind(self) -> ListKind<'static>;

    /// How a strategic merge patch treats a list or an object here.
    fn strategy(self) -> Strategy<'static>;

    /// The name of the type in messages, such as `PodSpec`; empty where it has none.
    fn type_name(self) -> &'static str;

    /// What upstream's encoder writes here when nobody set anything: an empty object for a struct that is no pointer,
    /// null for a list that is not left out when empty. Who sets fields inside does not come to own the whole.
    fn zero(self) -> Option<Value>;

    /// What an absent value here means; lists keyed by a field with a default need it.
    fn default(self) -> Option<Value>;
}

/// What belongs in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An object with declared fields.
    Struct,
    /// An object whose keys are data.
    Map,
    /// A list.
    List,
    /// Neither.
    Scalar(ScalarKind),
    /// The schema does not say.
    Any,
}

/// The type of a scalar, as coarsely as server-side apply looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarKind {
    /// A number.
    Numeric,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// Any of them: quantities, times, `IntOrString`.
    Untyped,
}

/// Upstream's `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind<'a> {
    /// One value, owned as a whole.
    Atomic,
    /// Scalars without repetition.
    Set,
    /// Objects told apart by these fields.
    Map(&'a [&'a str]),
}

/// Upstream's struct tags `patchStrategy` and `patchMergeKey`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strategy<'a> {
    /// Lists are merged instead of replaced.
    pub merge: bool,
    /// Objects are replaced instead of merged.
    pub replace: bool,
    /// Keys of an object that the patch does not name are dropped.
    pub retain_keys: bool,
    /// The field that tells elements of a merged list apart; absent for lists of scalars.
    pub merge_key: Option<&'a str>,
}
