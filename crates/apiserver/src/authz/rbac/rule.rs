//! One rule of a role: what it allows, what it covers, how it is written in messages.
//! Upstream: `rbac.RuleAllows`, `rbac/v1/evaluation_helpers.go`, `component-helpers/auth/rbac/validation`.

use crate::request::Attributes;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// `rbac.authorization.k8s.io/v1` PolicyRule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs, or `*`.
    #[serde(deserialize_with = "null_is_empty")]
    pub verbs: Vec<String>,
    /// API groups, or `*`; empty string for core.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Object names; empty is any.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths; a trailing `*` is a prefix.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|i| i == item)
}

fn has_or_star(list: &[String], item: &str) -> bool {
    list.iter().any(|i| i == "*" || i == item)
}

impl PolicyRule {
    /// The two rules that together allow everything.
    pub fn everything() -> [Self; 2] {
        let star = || vec!["*".to_owned()];
        [
            Self {
                verbs: star(),
                api_groups: star(),
                resources: star(),
                ..Self::default()
            },
            Self {
                verbs: star(),
                non_resource_urls: star(),
                ..Self::default()
            },
        ]
    }

    /// Whether the rule allows what the attributes ask for.
    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !has_or_star(&self.verbs, &attributes.verb) {
            return false;
        }
        if !attributes.is_resource_request {
            return self
                .non_resource_urls
                .iter()
                .any(|url| path_matches(url, &attributes.path));
        }
        has_or_star(&self.api_groups, &attributes.api_group)
            && self
                .resources
                .iter()
                .any(|r| resource_matches(r, &attributes.resource, &attributes.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, &attributes.name))
    }

    /// Whether everything that `atom` allows is allowed by this rule. `atom` comes from [`break_down`].
    fn covers(&self, atom: &Self) -> bool {
        let all = |mine: &[String], theirs: &[String]| theirs.iter().all(|t| has_or_star(mine, t));
        let names = if atom.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty() || atom.resource_names.iter().all(|n| has(&self.resource_names, n))
        };
        names
            && all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|path| {
                has_or_star(&self.resources, path)
                    || path
                        .split_once('/')
                        .is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
            })
            && atom
                .non_resource_urls
                .iter()
                .all(|path| self.non_resource_urls.iter().any(|mine| path_matches(mine, path)))
    }

    /// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`: how messages write a rule.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted_list(list)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// A list as Go's `%q` prints it: `["a" "b"]`.
pub(crate) fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

/// Splits a rule into rules of one verb, one group, one resource and at most one name each.
pub fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let mut atoms = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let atom = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(atom);
                } else {
                    atoms.extend(rule.resource_names.iter().map(|name| PolicyRule {
                        resource_names: one(name),
                        ..atom.clone()
                    }));
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        atoms.extend(rule.verbs.iter().map(|verb| PolicyRule {
            verbs: one(verb),
            non_resource_urls: one(url),
            ..PolicyRule::default()
        }));
    }
    atoms
}

/// The parts of `wanted` that `owned` does not allow, atom by atom; empty when all is covered.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(break_down)
        .filter(|atom| !owned.iter().any(|rule| rule.covers(atom)))
        .collect()
}

/// Joins rules that differ only in their verbs, where they have one group, one resource and at most one name.
pub fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    type Simple = (String, String, Option<String>);
    let mut compacted = Vec::new();
    let mut simple: BTreeMap<Simple, PolicyRule> = BTreeMap::new();
    for rule in rules {
        let key = match (
            &rule.api_groups[..],
            &rule.resources[..],
            &rule.resource_names[..],
        ) {
            ([group], [resource], names) if names.len() <= 1 && rule.non_resource_urls.is_empty() => {
                (group.clone(), resource.clone(), names.first().cloned())
            }
            _ => {
                compacted.push(rule);
                continue;
            }
        };
        match simple.get_mut(&key) {
            Some(joined) => joined.verbs.extend(rule.verbs),
            None => {
                simple.insert(key, rule);
            }
        }
    }
    compacted.extend(simple.into_values());
    compacted
}
