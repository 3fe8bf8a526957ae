//! Sets of field paths and their form `fieldsV1` in `metadata.managedFields`.
//! Upstream: `structured-merge-diff/fieldpath/set.go`.

use super::path::Step;
use crate::patch::schema::{Kind, Schema};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths. A path being in the set says nothing about those above or below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set(BTreeMap<Step, Node>);

/// Never without a reason to be: a member, or with members below it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Node {
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// From paths of plain field names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let steps: Vec<Step> = path.iter().map(|name| Step::field(name)).collect();
            set.insert(&steps);
        }
        set
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path. Nobody owns the whole object: the empty path is not added.
    pub fn insert(&mut self, path: &[Step]) {
        let Some((last, above)) = path.split_last() else {
            return;
        };
        let mut set = self;
        for step in above {
            set = &mut set.node(step).below;
        }
        set.node(last).member = true;
    }

    /// The node of a step, made if it is not there.
    fn node(&mut self, step: &Step) -> &mut Node {
        if !self.0.contains_key(step) {
            self.0.insert(step.clone(), Node::default());
        }
        self.0.get_mut(step).expect("just made")
    }

    /// Whether a path of one step is in the set.
    pub fn has(&self, step: &Step) -> bool {
        self.0.get(step).is_some_and(|node| node.member)
    }

    /// Whether a path is in the set.
    pub fn has_path(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|set| set.has_path(rest)),
        }
    }

    /// The paths that begin with a step, without it.
    pub fn below(&self, step: &Step) -> Option<&Set> {
        self.0
            .get(step)
            .map(|node| &node.below)
            .filter(|set| !set.is_empty())
    }

    fn collect(nodes: impl Iterator<Item = (Step, Node)>) -> Self {
        Self(nodes.filter(|(_, node)| !node.is_empty()).collect())
    }

    /// The paths in either set.
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.extend(other);
        result
    }

    /// The paths in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let nodes = self.0.iter().filter_map(|(step, ours)| {
            let theirs = other.0.get(step)?;
            let node = Node {
                member: ours.member && theirs.member,
                below: ours.below.intersection(&theirs.below),
            };
            Some((step.clone(), node))
        });
        Self::collect(nodes)
    }

    /// The paths that are not in the other set.
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.subtract(other);
        result
    }

    /// Removes the paths of another set; what it does not mention is not touched.
    pub fn subtract(&mut self, other: &Self) {
        for (step, theirs) in &other.0 {
            if let Some(ours) = self.0.get_mut(step) {
                ours.member &= !theirs.member;
                ours.below.subtract(&theirs.below);
                if ours.is_empty() {
                    self.0.remove(step);
                }
            }
        }
    }

    /// Adds the paths of another set.
    pub fn extend(&mut self, other: &Self) {
        for (step, theirs) in &other.0 {
            let ours = self.node(step);
            ours.member |= theirs.member;
            ours.below.extend(&theirs.below);
        }
    }

    /// Removes the paths of another set, and all below them.
    pub fn subtract_recursively(&mut self, other: &Self) {
        for (step, theirs) in &other.0 {
            if let Some(ours) = self.0.get_mut(step) {
                if theirs.member {
                    *ours = Node::default();
                }
                ours.below.subtract_recursively(&theirs.below);
                if ours.is_empty() {
                    self.0.remove(step);
                }
            }
        }
    }

    /// Adds each declared field that has a member below it: with `.spec.replicas` also `.spec`.
    pub fn with_named_fields<S: Schema>(&self, schema: Option<S>) -> Self {
        let nodes = self.0.iter().map(|(step, node)| {
            let field = step.field_name();
            let child = schema.and_then(|s| field.map_or_else(|| s.element(), |name| s.child(name)));
            let declared =
                field.is_some() && child.is_some() && schema.is_some_and(|s| s.kind() == Kind::Struct);
            let node = Node {
                member: node.member || (declared && !node.below.is_empty()),
                below: node.below.with_named_fields(child),
            };
            (step.clone(), node)
        });
        Self(nodes.collect())
    }

    /// All paths: the members of one level first, then what is below.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for (step, _) in self.0.iter().filter(|(_, node)| node.member) {
            let mut path = prefix.clone();
            path.push(step.clone());
            paths.push(path);
        }
        for (step, node) in &self.0 {
            prefix.push(step.clone());
            node.below.collect_paths(prefix, paths);
            prefix.pop();
        }
    }

    /// The wire form.
    pub fn to_fields_v1(&self) -> Value {
        let mut object = Map::new();
        for (step, node) in &self.0 {
            let mut below = node.below.to_fields_v1();
            if let (true, false, Value::Object(fields)) = (node.member, node.below.is_empty(), &mut below) {
                fields.insert(".".to_owned(), Value::Object(Map::new()));
            }
            object.insert(step.as_str().to_owned(), below);
        }
        Value::Object(object)
    }

    /// Reads the wire form; `None` if it is not one.
    pub fn from_fields_v1(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (step, below) in fields.as_object()? {
            if step == "." {
                // Says that the path above is a member, which its owner has seen.
                continue;
            }
            let fields = below.as_object()?;
            let node = Node {
                member: fields.is_empty() || fields.contains_key("."),
                below: Self::from_fields_v1(below)?,
            };
            set.0.insert(Step::parse(step)?, node);
        }
        Some(set)
    }
}
