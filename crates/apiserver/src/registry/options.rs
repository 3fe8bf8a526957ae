//! The query parameters and bodies that say how a request is meant.
//! Upstream: `metav1.ListOptions`, `CreateOptions`, `DeleteOptions` and their validation.

use crate::negotiation;
use crate::request::{query_pairs, query_value};
use coracle_meta::field::{FieldError, FieldPath};
use coracle_meta::{FieldSelector, Selector, Status};
use http::{HeaderMap, Uri, header};
use serde_json::Value;

/// The media type of server-side apply.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// What to do about unknown and duplicate fields. Upstream: `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse.
    Strict,
}

/// How a write is meant.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Check everything, store nothing.
    pub dry_run: bool,
    /// Who owns the fields that are written.
    pub field_manager: String,
    /// See [`FieldValidation`].
    pub field_validation: FieldValidation,
    /// The body is a configuration to apply.
    pub apply: bool,
    /// Apply takes fields away from other managers.
    pub force: bool,
}

impl WriteOptions {
    /// Reads the query; `kind` is the name of the options in errors.
    pub fn parse(uri: &Uri, headers: &HeaderMap, kind: &str) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let dry_run: Vec<String> = values(uri, "dryRun").collect();
        check_dry_run(&dry_run, &mut errors);
        let field_validation = match query_value(uri, "fieldValidation").as_deref() {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let allowed = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported(
                    &FieldPath::new("fieldValidation"),
                    other,
                    &allowed,
                ));
                FieldValidation::Warn
            }
        };
        let field_manager = query_value(uri, "fieldManager").unwrap_or_default();
        let apply = negotiation::content_type(headers) == APPLY_PATCH;
        let force = query_value(uri, "force");
        if apply && field_manager.is_empty() {
            let path = FieldPath::new("fieldManager");
            errors.push(FieldError::required(&path, "is required for apply patch"));
        }
        if !apply && force.is_some() && kind == "PatchOptions" {
            let path = FieldPath::new("force");
            errors.push(FieldError::forbidden(
                &path,
                "may not be specified for non-apply patch",
            ));
        }
        if field_manager.len() > 128 {
            errors.push(FieldError::too_long(&FieldPath::new("fieldManager"), 128));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &errors));
        }
        Ok(Self {
            dry_run: dry_run.iter().any(|value| value == "All"),
            field_manager: if field_manager.is_empty() {
                user_agent_prefix(headers)
            } else {
                field_manager
            },
            field_validation,
            apply,
            force: force.is_some_and(|value| is_true(&value)),
        })
    }
}

fn values<'a>(uri: &'a Uri, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query_pairs(uri)
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value)
}

fn check_dry_run(values: &[String], errors: &mut Vec<FieldError>) {
    for value in values.iter().filter(|value| *value != "All") {
        errors.push(FieldError::not_supported(
            &FieldPath::new("dryRun"),
            value.as_str(),
            &["All"],
        ));
    }
}

/// Go reads an empty boolean parameter as true.
fn is_true(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

/// `kubectl/v1.32 (linux)` manages fields as `kubectl`.
fn user_agent_prefix(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
    let prefix = agent.unwrap_or_default().split('/').next().unwrap_or_default();
    let printable = prefix.chars().filter(|c| !c.is_control());
    let prefix: String = printable.take(128).collect();
    if prefix.is_empty() {
        "unknown".to_owned()
    } else {
        prefix
    }
}

/// How dependents go. Upstream: `propagationPolicy`, and `orphanDependents` of old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The collector takes them afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// How a deletion is meant.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds; the kind's own default if absent.
    pub grace_period: Option<i64>,
    /// Must be the object's uid.
    pub uid: Option<String>,
    /// Must be the object's revision.
    pub resource_version: Option<String>,
    /// The kind's own default if absent.
    pub propagation: Option<Propagation>,
    /// Check everything, delete nothing.
    pub dry_run: bool,
    /// As JSON, for admission.
    pub raw: Value,
}

impl DeleteOptions {
    /// From the body, or from the query when there is no body.
    pub fn parse(body: Option<Value>, uri: &Uri) -> Result<Self, Status> {
        let raw = body.unwrap_or_else(|| from_query(uri));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut errors = Vec::new();
        let dry_run: Vec<String> = raw["dryRun"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect();
        check_dry_run(&dry_run, &mut errors);
        let policy_path = FieldPath::new("propagationPolicy");
        let orphan = raw["orphanDependents"].as_bool();
        let policy = raw["propagationPolicy"].as_str();
        let propagation = match (orphan, policy) {
            (Some(_), Some(_)) => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(&policy_path, policy.unwrap_or_default(), why));
                None
            }
            (Some(true), None) => Some(Propagation::Orphan),
            (Some(false), None) => Some(Propagation::Background),
            (None, None) => None,
            (None, Some("Orphan")) => Some(Propagation::Orphan),
            (None, Some("Foreground")) => Some(Propagation::Foreground),
            (None, Some("Background")) => Some(Propagation::Background),
            (None, Some(other)) => {
                let allowed = ["Background", "Foreground", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&policy_path, other, &allowed));
                None
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        Ok(Self {
            // Upstream reads a negative period as one second.
            grace_period: raw["gracePeriodSeconds"]
                .as_i64()
                .map(|n| if n < 0 { 1 } else { n }),
            uid: text(&raw["preconditions"]["uid"]),
            resource_version: text(&raw["preconditions"]["resourceVersion"]),
            propagation,
            dry_run: !dry_run.is_empty(),
            raw,
        })
    }
}

fn from_query(uri: &Uri) -> Value {
    let mut options = serde_json::json!({ "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1" });
    for (key, value) in query_pairs(uri) {
        match key.as_str() {
            "gracePeriodSeconds" => options[key] = value.parse::<i64>().ok().into(),
            "orphanDependents" => options[key] = is_true(&value).into(),
            "propagationPolicy" => options[key] = value.into(),
            "dryRun" => options[key] = vec![value].into(),
            _ => {}
        }
    }
    options
}

/// What a `resourceVersion` of a LIST or WATCH means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// Any state at least as new.
    NotOlderThan,
    /// Exactly that state.
    Exact,
}

/// How a LIST or WATCH is meant.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// On labels.
    pub labels: Selector,
    /// On fields.
    pub fields: FieldSelector,
    /// The most items to return.
    pub limit: Option<usize>,
    /// Where an earlier LIST stopped.
    pub continue_token: Option<String>,
    /// Absent is the newest.
    pub resource_version: Option<u64>,
    /// See [`VersionMatch`].
    pub version_match: Option<VersionMatch>,
    /// Seconds after which a watch ends.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch may send bookmarks.
    pub bookmarks: bool,
    /// Whether a watch begins with the present state.
    pub initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads the query.
    pub fn parse(uri: &Uri, watch: bool) -> Result<Self, Status> {
        let get = |name: &str| query_value(uri, name).filter(|value| !value.is_empty());
        let labels = get("labelSelector").unwrap_or_default();
        let fields = get("fieldSelector").unwrap_or_default();
        let resource_version = get("resourceVersion");
        let version_match = get("resourceVersionMatch");
        let options = Self {
            labels: Selector::parse(&labels).map_err(|error| Status::bad_request(error.to_string()))?,
            fields: FieldSelector::parse(&fields).map_err(|error| Status::bad_request(error.to_string()))?,
            limit: number(uri, "limit")?
                .filter(|n| *n > 0)
                .and_then(|n| usize::try_from(n).ok()),
            continue_token: get("continue"),
            resource_version: match &resource_version {
                Some(text) => Some(parse_version(text)?),
                None => None,
            },
            version_match: match version_match.as_deref() {
                None => None,
                Some("Exact") => Some(VersionMatch::Exact),
                Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
                Some(other) => {
                    let path = FieldPath::new("resourceVersionMatch");
                    let allowed = ["", "Exact", "NotOlderThan"];
                    return Err(invalid(FieldError::not_supported(&path, other, &allowed)));
                }
            },
            timeout_seconds: number(uri, "timeoutSeconds")?.filter(|n| *n > 0),
            bookmarks: get("allowWatchBookmarks").is_some_and(|value| is_true(&value)),
            initial_events: get("sendInitialEvents").map(|value| is_true(&value)),
        };
        options.check(watch)?;
        Ok(options)
    }

    fn check(&self, watch: bool) -> Result<(), Status> {
        let forbidden =
            |field: &str, why: &str| Err(invalid(FieldError::forbidden(&FieldPath::new(field), why)));
        let version_match = "resourceVersionMatch";
        if watch {
            return match (self.initial_events, self.version_match) {
                (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => Ok(()),
                (Some(_), _) => forbidden(
                    version_match,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                (None, Some(_)) => forbidden(version_match, "resourceVersionMatch is forbidden for watch"),
            };
        }
        if self.initial_events.is_some() {
            return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        match (self.version_match, self.resource_version) {
            (Some(_), None) => {
                return forbidden(
                    version_match,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            (Some(VersionMatch::Exact), Some(0)) => {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                return forbidden(version_match, why);
            }
            _ => {}
        }
        if self.continue_token.is_some() {
            if self.version_match.is_some() {
                return forbidden(
                    version_match,
                    "resourceVersionMatch is forbidden when continue is provided",
                );
            }
            if self.resource_version.is_some_and(|version| version != 0) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
        }
        Ok(())
    }
}

fn invalid(error: FieldError) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", &[error])
}

fn number(uri: &Uri, name: &str) -> Result<Option<u64>, Status> {
    match query_value(uri, name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    }
}

/// A resource version as a number.
pub fn parse_version(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        invalid(FieldError::invalid(
            &FieldPath::new("resourceVersion"),
            text,
            &why,
        ))
    })
}
