//! What others need to verify tokens of service accounts: OpenID discovery.
//! Upstream: `pkg/serviceaccount/openidmetadata.go`, `pkg/routes/openidmetadata.go`.

use super::Keys;
use crate::config::Document;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const JWKS_PATH: &str = "/openid/v1/jwks";

/// The discovery document of the issuer and its keys; `external` is where this server answers.
pub fn documents(keys: &Keys, issuer: &str, external: SocketAddr) -> Vec<Document> {
    let jwks = keys.to_jwks();
    let algorithms: BTreeSet<&str> = jwks["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| key["alg"].as_str())
        .collect();
    let configuration = json!({
        "issuer": issuer,
        "jwks_uri": format!("https://{external}{JWKS_PATH}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    let document = |path, content_type, body: Value| Document {
        path,
        content_type,
        body,
    };
    vec![
        document(
            "/.well-known/openid-configuration",
            "application/json",
            configuration,
        ),
        document(JWKS_PATH, "application/jwk-set+json", jwks),
    ]
}
