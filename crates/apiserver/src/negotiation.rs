//! Content negotiation: which form of an object a request brings and which it wants back.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`.

use coracle_meta::Status;
use http::{HeaderMap, header};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

impl Encoding {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object or list itself.
    Object,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata` or `as=PartialObjectMetadataList`.
    Metadata,
}

/// The outcome of a negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType {
    /// How.
    pub encoding: Encoding,
    /// What.
    pub form: Form,
}

/// One alternative of an `Accept` header.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause<'a> {
    /// `application/json`, `*/*`.
    pub media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Self {
            media: parts.next().unwrap_or_default(),
            quality: 1.0,
            parameters: Vec::new(),
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if key == "q" {
                clause.quality = value.parse().unwrap_or(0.0);
            } else {
                clause.parameters.push((key, value.trim_matches('"')));
            }
        }
        clause
    }

    /// A parameter of the media type, or empty.
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    /// The encoding this alternative allows, if it is one that we have.
    pub fn encoding(&self) -> Option<Encoding> {
        match self.media {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }
}

/// The alternatives of the `Accept` header, best first; without a header everything is accepted.
pub fn accept(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers.get_all(header::ACCEPT).iter();
    let mut clauses: Vec<Clause> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|text| !text.trim().is_empty())
        .map(Clause::parse)
        .collect();
    if clauses.is_empty() {
        clauses.push(Clause::parse("*/*"));
    }
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// The first alternative of the `Accept` header that the registry can write.
pub fn output(headers: &HeaderMap) -> Result<MediaType, Status> {
    accept(headers).iter().find_map(media_type).ok_or_else(|| {
        Status::failure(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

fn media_type(clause: &Clause) -> Option<MediaType> {
    let encoding = clause.encoding()?;
    let form = match (clause.parameter("as"), clause.parameter("g")) {
        ("", _) => Form::Object,
        ("Table", "meta.k8s.io") => Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => Form::Metadata,
        _ => return None,
    };
    let known = form == Form::Object || matches!(clause.parameter("v"), "v1" | "v1beta1");
    known.then_some(MediaType { encoding, form })
}

/// The media type of a request body, without parameters; JSON when there is none.
pub fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .unwrap_or("application/json")
}

/// How a request body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The encoding of a request body that is an object.
pub fn input(headers: &HeaderMap) -> Result<Input, Status> {
    match content_type(headers) {
        "application/json" => Ok(Input::Json),
        "application/yaml" => Ok(Input::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Input::Protobuf),
        _ => Err(unsupported(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// 415: the body has a form that is not among `accepted`.
pub fn unsupported(accepted: &str) -> Status {
    Status::failure(
        415,
        "UnsupportedMediaType",
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn negotiate(accept: &str) -> Option<(Encoding, Form)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        output(&headers).ok().map(|media| (media.encoding, media.form))
    }

    #[test]
    fn what_clients_ask_for() {
        use Encoding::{Json, Yaml};
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(kubectl), Some((Json, Form::Table)));
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf,application/json"),
            Some((Json, Form::Object))
        );
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(negotiate("*/*"), Some((Json, Form::Object)));
        assert_eq!(
            negotiate("application/json;q=0.5, application/yaml"),
            Some((Yaml, Form::Object))
        );
        assert_eq!(
            negotiate("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Some((Json, Form::Metadata))
        );
        assert_eq!(negotiate("application/json;as=Chair;g=meta.k8s.io;v=v1"), None);
        let plain = output(&HeaderMap::new()).unwrap();
        assert_eq!((plain.encoding, plain.form), (Json, Form::Object));
    }
}
