//! Which Pods the selector finds, and if none: which one somebody may have meant.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::near::distance;
use crate::pod;
use crate::subject::{Subject, count, some};
use coracle_meta::Selector;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const STEP: StepName = StepName::Selector;

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    let Some(selector) = subject.selector() else {
        walk.ok(STEP, "none: whoever made the Service writes its EndpointSlices");
        return;
    };
    if !subject.pods.is_empty() {
        let names = subject.pods.iter().map(|pod| pod::name(pod));
        let text = format!(
            "{} finds {}: {}",
            terms(selector),
            count(subject.pods.len(), "Pod"),
            some(names)
        );
        walk.ok(STEP, text);
        return;
    }
    walk.found(STEP, nothing_matches(subject, selector));
}

fn nothing_matches(subject: &Subject<'_>, selector: &Labels) -> Verdict {
    let message = format!("selector {} matches no Pod", terms(selector));
    let problem = |code, reason: String, fix| Verdict::problem(code, format!("{message}; {reason}"), fix);
    let matches = Selector::from_set(selector);
    let workload = subject
        .evidence
        .workloads
        .iter()
        .find(|w| matches.matches(&w.labels));
    if let Some(workload) = workload {
        let (resource, name) = (&workload.resource, &workload.name);
        return if workload.replicas == 0 {
            let fix = subject.kubectl(&format!("scale {resource} {name} --replicas=1"));
            problem(
                Code::ScaledToZero,
                format!("{resource} {name}, whose Pods it would match, has 0 replicas"),
                fix,
            )
        } else {
            let fix = format!(
                "see why: {}",
                subject.kubectl(&format!("describe {resource} {name}"))
            );
            let reason = format!("{resource} {name}, whose Pods it would match, has not made them");
            problem(Code::SelectorMatchesNothing, reason, fix)
        };
    }
    if let Some(meant) = nearest(selector, subject) {
        let pods = count(meant.pods, "Pod");
        let have = if meant.pods == 1 { "has" } else { "have" };
        let fix = subject.kubectl(&format!(
            "patch service {} -p '{}'",
            subject.evidence.name,
            patch(selector, &meant.selector)
        ));
        return problem(
            Code::SelectorMatchesNothing,
            format!("{pods} {have} {}", terms(&meant.labels)),
            fix,
        );
    }
    let elsewhere = &subject.evidence.elsewhere;
    if let Some((namespace, pods)) = elsewhere.iter().next() {
        let reason = format!(
            "{} in namespace {namespace:?} would match, but a Service finds Pods of its own namespace only",
            count(*pods, "Pod")
        );
        let fix = format!(
            "create the Service in namespace {namespace:?}, and use the name {}.{namespace}",
            subject.evidence.name
        );
        return problem(Code::SelectorMatchesNothing, reason, fix);
    }
    if subject.evidence.pods.is_empty() {
        let reason = format!("there are no Pods in namespace {:?}", subject.evidence.namespace);
        return problem(
            Code::SelectorMatchesNothing,
            reason,
            "create the Pods, or what makes them".to_owned(),
        );
    }
    let labels: BTreeSet<String> = subject
        .evidence
        .pods
        .iter()
        .filter_map(|pod| pod.metadata.labels.as_ref())
        .map(terms)
        .collect();
    let reason = if labels.is_empty() {
        "no Pod in the namespace has a label".to_owned()
    } else {
        format!("the Pods in the namespace have {}", some(labels))
    };
    let fix = "make the selector and the labels of the Pods the same".to_owned();
    problem(Code::SelectorMatchesNothing, reason, fix)
}

/// What somebody may have meant.
struct Meant {
    /// The selector that would find the Pods.
    selector: Labels,
    /// The part of it that is different.
    labels: Labels,
    /// How many Pods that would find.
    pods: usize,
}

/// The labels of Pods that are nearest to the selector, each term within a slip; of equally near ones those that most
/// Pods have.
fn nearest(selector: &Labels, subject: &Subject<'_>) -> Option<Meant> {
    let mut candidates: BTreeMap<Labels, usize> = BTreeMap::new();
    for labels in subject
        .evidence
        .pods
        .iter()
        .filter_map(|pod| pod.metadata.labels.as_ref())
    {
        if let Some((candidate, distance)) = closest_terms(selector, labels) {
            candidates.insert(candidate, distance);
        }
    }
    let pods_with = |wanted: &Labels| {
        let selector = Selector::from_set(wanted);
        let pods = subject.evidence.pods.iter();
        pods.filter(|pod| selector.matches(&pod.metadata.labels)).count()
    };
    let (meant, _, pods) = candidates
        .into_iter()
        .map(|(candidate, distance)| {
            let pods = pods_with(&candidate);
            (candidate, distance, pods)
        })
        .min_by_key(|(_, distance, pods)| (*distance, std::cmp::Reverse(*pods)))?;
    let labels = meant
        .iter()
        .filter(|(key, value)| selector.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Some(Meant {
        selector: meant,
        labels,
        pods,
    })
}

/// For each term the label of a Pod that it may have meant, and how far all of them are. None if one has no such.
fn closest_terms(selector: &Labels, labels: &Labels) -> Option<(Labels, usize)> {
    let mut meant = Labels::new();
    let mut total = 0;
    for (key, value) in selector {
        let best = labels
            .iter()
            .filter_map(|(k, v)| {
                let d = match (k == key, v == value) {
                    (true, true) => 0,
                    // The same key with quite another value may be meant, too: `app: frontend`, `app: web`. But what
                    // is a slip comes before it.
                    (true, false) => distance(value, v).unwrap_or(FAR),
                    (false, true) => 1 + distance(key, k).unwrap_or(FAR),
                    (false, false) => 1 + distance(key, k)? + distance(value, v)?,
                };
                Some((d, k, v))
            })
            .min()?;
        let (distance, key, value) = best;
        total += distance;
        meant.insert(key.clone(), value.clone());
    }
    // Selectors of one term that is quite different mean something else.
    (total < FAR).then_some((meant, total))
}

/// Further than any slip.
const FAR: usize = 1000;

fn patch(old: &Labels, new: &Labels) -> Value {
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let set = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), json!(value)));
    let selector: serde_json::Map<String, Value> = gone.chain(set).collect();
    json!({"spec": {"selector": selector}})
}

/// `` `app: web, tier: api` ``.
pub(crate) fn terms(labels: &Labels) -> String {
    let terms: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    format!("`{}`", terms.join(", "))
}
