//! Facts about the types of the built-in kinds: their fields, and how patches merge them. One table, generated
//! from upstream's OpenAPI documents (`cargo xtask schema`), read once on first use.
//!
//! It drives strict decoding, defaults that the schema declares, strategic merge, server-side apply and OpenAPI.

mod decode;
mod defaults;
mod load;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoded, cannot_be_handled, decode, decode_value};
pub use defaults::set_defaults;

use coracle_meta::GroupVersionKind;
use coracle_meta::patch::{Kind, ListKind, ScalarKind, Schema, Strategy};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The common beginning of all type names, left out of the table.
pub const PREFIX: &str = "io.k8s.";

const TEXT: &str = include_str!("table.txt");

static TABLE: LazyLock<Table> = LazyLock::new(|| load::load(TEXT));

/// Everything in memory. Strings point into the binary.
struct Table {
    types: Vec<Type>,
    fields: Vec<Field>,
    expressions: Vec<Expression>,
    attributes: Vec<Attributes>,
    kinds: HashMap<(&'static str, &'static str, &'static str), u16>,
}

/// A named type.
struct Type {
    name: &'static str,
    shape: TypeShape,
    atomic: bool,
    /// `group/version/kind` of each kind that the type is.
    kinds: Box<[&'static str]>,
}

#[derive(Clone, Copy)]
enum TypeShape {
    /// Declared fields: a range of the table's fields, ordered by name.
    Object {
        first: u16,
        last: u16,
    },
    Scalar(Scalar),
}

/// A declared field.
#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    required: bool,
    ty: TypeRef,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Expression {
    Scalar(Scalar),
    Named(u16),
    List(u16),
    Map(u16),
}

#[derive(Clone, PartialEq, Default)]
struct Attributes {
    list: Option<ListKind<'static>>,
    /// Whether the object is replaced as one; what a field says overrides its type.
    atomic: Option<bool>,
    strategy: Strategy<'static>,
    zero: Option<Value>,
    default: Option<Value>,
}

/// A type without fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Text.
    String,
    /// Base64 text.
    Bytes,
    /// True or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Double,
    /// `resource.Quantity`: text or number.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `metav1.Time`.
    Time,
    /// `metav1.MicroTime`.
    MicroTime,
    /// An object that no schema knows: `runtime.RawExtension`, `FieldsV1`.
    Opaque,
    /// Any JSON at all.
    Any,
}

/// The type of one place in an object: a type and the attributes of the field that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRef {
    expression: u16,
    attributes: u16,
}

/// What a [`TypeRef`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Declared fields only; see [`TypeRef::fields`].
    Object,
    /// Any keys, with values of one type.
    Map(TypeRef),
    /// Elements of one type.
    List(TypeRef),
    /// No structure.
    Scalar(Scalar),
}

/// A declared field, as [`TypeRef::fields`] shows it.
#[derive(Debug, Clone, Copy)]
pub struct FieldRef {
    /// The name in JSON.
    pub name: &'static str,
    /// Whether the schema says that it must be there.
    pub required: bool,
    /// Its type.
    pub ty: TypeRef,
}

/// Changes when the table does (FNV-1a of its text, in hexadecimal).
pub fn fingerprint() -> String {
    let hash = TEXT.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016X}")
}

/// The type of a kind.
pub fn lookup(gvk: &GroupVersionKind) -> Option<TypeRef> {
    let key = (gvk.group.as_str(), gvk.version.as_str(), gvk.kind.as_str());
    TABLE.kinds.get(&key).map(|&ty| Table::plain(ty))
}

/// The type with this name, with or without [`PREFIX`].
pub fn by_name(name: &str) -> Option<TypeRef> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let index = TABLE.types.binary_search_by(|t| t.name.cmp(name)).ok()?;
    u16::try_from(index).ok().map(Table::plain)
}

impl Table {
    /// A named type without attributes. The loader interns the named types first and in order, so that a type's
    /// index is also that of its expression.
    fn plain(ty: u16) -> TypeRef {
        TypeRef {
            expression: ty,
            attributes: 0,
        }
    }

    fn fields(&self, first: u16, last: u16) -> &[Field] {
        &self.fields[usize::from(first)..usize::from(last)]
    }
}

impl TypeRef {
    fn expression(self) -> Expression {
        TABLE.expressions[usize::from(self.expression)]
    }

    fn attributes(self) -> &'static Attributes {
        &TABLE.attributes[usize::from(self.attributes)]
    }

    fn named(self) -> Option<&'static Type> {
        match self.expression() {
            Expression::Named(ty) => Some(&TABLE.types[usize::from(ty)]),
            _ => None,
        }
    }

    fn declared(self) -> &'static [Field] {
        match self.named().map(|ty| ty.shape) {
            Some(TypeShape::Object { first, last }) => TABLE.fields(first, last),
            _ => &[],
        }
    }

    fn find(self, name: &str) -> Option<&'static Field> {
        let fields = self.declared();
        let index = fields.binary_search_by(|f| f.name.cmp(name)).ok()?;
        Some(&fields[index])
    }

    /// What this is.
    pub fn shape(self) -> Shape {
        let bare = |expression| TypeRef {
            expression,
            attributes: 0,
        };
        match self.expression() {
            Expression::Scalar(scalar) => Shape::Scalar(scalar),
            Expression::List(element) => Shape::List(bare(element)),
            Expression::Map(value) => Shape::Map(bare(value)),
            Expression::Named(ty) => match TABLE.types[usize::from(ty)].shape {
                TypeShape::Object { .. } => Shape::Object,
                TypeShape::Scalar(scalar) => Shape::Scalar(scalar),
            },
        }
    }

    /// The type's name without [`PREFIX`], if it has one: `api.core.v1.Container`.
    pub fn name(self) -> Option<&'static str> {
        self.named().map(|ty| ty.name)
    }

    /// Group, version and kind of each kind that the type is.
    pub fn kinds(self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let kinds: &'static [&'static str] = self.named().map_or(&[], |ty| &ty.kinds);
        kinds.iter().filter_map(|kind| load::split_kind(kind))
    }

    /// The declared fields, ordered by name. Maps, lists and scalars have none.
    pub fn fields(self) -> impl Iterator<Item = FieldRef> {
        self.declared().iter().map(|field| FieldRef {
            name: field.name,
            required: field.required,
            ty: field.ty,
        })
    }

    /// What the field says of its list, if it says anything.
    pub(crate) fn declared_list_kind(self) -> Option<ListKind<'static>> {
        self.attributes().list
    }

    /// Whether the object here is replaced as one, if the field says anything of it.
    pub(crate) fn declared_atomic(self) -> Option<bool> {
        self.attributes().atomic
    }

    /// The type at a path of keys; lists are passed through to their elements.
    pub fn at(self, path: &[&str]) -> Option<TypeRef> {
        path.iter()
            .try_fold(self, |ty, key| ty.through_lists().child(key))
    }

    fn through_lists(self) -> TypeRef {
        match self.shape() {
            Shape::List(element) => element.through_lists(),
            _ => self,
        }
    }

    /// The name of the corresponding Go type, as upstream's messages have it: `v1.Container`, `map[string]string`.
    pub fn go_name(self) -> String {
        match self.shape() {
            Shape::List(element) => format!("[]{}", element.go_name()),
            Shape::Map(value) => format!("map[string]{}", value.go_name()),
            Shape::Object => self.qualified_name(),
            Shape::Scalar(scalar) => match scalar {
                Scalar::String => "string".to_owned(),
                Scalar::Bytes => "[]uint8".to_owned(),
                Scalar::Bool => "bool".to_owned(),
                Scalar::Int32 => "int32".to_owned(),
                Scalar::Int64 => "int64".to_owned(),
                Scalar::Double => "float64".to_owned(),
                _ => self.qualified_name(),
            },
        }
    }

    /// Package and type: `v1.Container`.
    fn qualified_name(self) -> String {
        let name = self.name().unwrap_or_default();
        let mut parts = name.rsplit('.');
        let ty = parts.next().unwrap_or_default();
        let package = parts.next().unwrap_or_default();
        format!("{package}.{ty}")
    }
}

impl Schema for TypeRef {
    fn kind(self) -> Kind {
        match self.shape() {
            Shape::Object => Kind::Struct,
            Shape::Map(_) => Kind::Map,
            Shape::List(_) => Kind::List,
            Shape::Scalar(scalar) => match scalar {
                Scalar::String | Scalar::Bytes => Kind::Scalar(ScalarKind::String),
                Scalar::Bool => Kind::Scalar(ScalarKind::Boolean),
                Scalar::Int32 | Scalar::Int64 | Scalar::Double => Kind::Scalar(ScalarKind::Numeric),
                Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime => {
                    Kind::Scalar(ScalarKind::Untyped)
                }
                Scalar::Opaque | Scalar::Any => Kind::Any,
            },
        }
    }

    fn child(self, key: &str) -> Option<Self> {
        match self.shape() {
            Shape::Object => self.find(key).map(|field| field.ty),
            Shape::Map(value) => Some(value),
            Shape::List(_) | Shape::Scalar(_) => None,
        }
    }

    fn element(self) -> Option<Self> {
        match self.shape() {
            Shape::List(element) => Some(element),
            _ => None,
        }
    }

    fn is_atomic(self) -> bool {
        let opaque = matches!(self.shape(), Shape::Scalar(Scalar::Opaque | Scalar::Any));
        let of_type = self.named().is_some_and(|ty| ty.atomic);
        opaque || self.attributes().atomic.unwrap_or(of_type)
    }

    fn list_kind(self) -> ListKind<'static> {
        self.attributes().list.unwrap_or(ListKind::Atomic)
    }

    fn strategy(self) -> Strategy<'static> {
        self.attributes().strategy
    }

    fn type_name(self) -> &'static str {
        let name = self.through_lists().name().unwrap_or_default();
        name.rsplit('.').next().unwrap_or_default()
    }

    fn zero(self) -> Option<Value> {
        self.attributes().zero.clone()
    }

    fn default(self) -> Option<Value> {
        self.attributes().default.clone()
    }
}

/// All named types, ordered by name.
pub fn types() -> impl Iterator<Item = TypeRef> {
    (0..TABLE.types.len()).filter_map(|i| u16::try_from(i).ok().map(Table::plain))
}
