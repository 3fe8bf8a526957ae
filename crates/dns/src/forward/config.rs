//! Stub domains and resolvers from the ConfigMap `kube-system/kube-dns`, in its documented form:
//! `stubDomains` is a JSON object of domain to addresses, `upstreamNameservers` a JSON array of up to three.
//! Upstream: `pkg/dns/config` of kubernetes/dns.

use super::resolv_conf::DNS_PORT;
use crate::name::{InvalidName, Name};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const STUB_DOMAINS: &str = "stubDomains";
const UPSTREAM_NAMESERVERS: &str = "upstreamNameservers";
const MOST_NAMESERVERS: usize = 3;

/// Who is asked for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardConfig {
    /// Names in these domains are asked of these resolvers; the longest domain wins.
    pub(super) stub_domains: Vec<(Name, Vec<SocketAddr>)>,
    /// In place of the host's resolvers.
    pub(super) upstream: Option<Vec<SocketAddr>>,
}

/// The ConfigMap does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is not JSON of the right form.
    #[error("`{key}` is not valid JSON of this form: {form}")]
    Form {
        /// Key of the ConfigMap.
        key: &'static str,
        /// What it should look like.
        form: &'static str,
        /// Why it is not.
        source: Option<serde_json::Error>,
    },
    /// A stub domain is none.
    #[error("`stubDomains` has a key that cannot be")]
    Domain(#[source] InvalidName),
    /// A resolver is not an address.
    #[error("`{key}` has `{value}`, which is not an IP address with or without a port")]
    Address {
        /// Key of the ConfigMap.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// More resolvers than the format allows.
    #[error("`upstreamNameservers` has more than three entries")]
    TooMany,
}

impl ForwardConfig {
    /// Reads the `data` of the ConfigMap. Other keys are not looked at.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let form = r#"{"acme.local": ["1.2.3.4"]}"#;
        if let Some(value) = json(data, STUB_DOMAINS, form)? {
            let domains = value.as_object().ok_or(ConfigError::Form {
                key: STUB_DOMAINS,
                form,
                source: None,
            })?;
            for (domain, servers) in domains {
                let domain = Name::parse(domain).map_err(ConfigError::Domain)?;
                config
                    .stub_domains
                    .push((domain, addresses(STUB_DOMAINS, form, servers)?));
            }
            config
                .stub_domains
                .sort_by_key(|(domain, _)| std::cmp::Reverse(domain.as_bytes().len()));
        }
        let form = r#"["8.8.8.8", "8.8.4.4"]"#;
        if let Some(value) = json(data, UPSTREAM_NAMESERVERS, form)? {
            let servers = addresses(UPSTREAM_NAMESERVERS, form, &value)?;
            if servers.len() > MOST_NAMESERVERS {
                return Err(ConfigError::TooMany);
            }
            // An empty list says nothing: the host's are used.
            config.upstream = (!servers.is_empty()).then_some(servers);
        }
        Ok(config)
    }
}

fn json(
    data: &BTreeMap<String, String>,
    key: &'static str,
    form: &'static str,
) -> Result<Option<Value>, ConfigError> {
    match data.get(key).map(|text| text.trim()) {
        None | Some("") => Ok(None),
        Some(text) => serde_json::from_str(text)
            .map(Some)
            .map_err(|source| ConfigError::Form {
                key,
                form,
                source: Some(source),
            }),
    }
}

fn addresses(key: &'static str, form: &'static str, list: &Value) -> Result<Vec<SocketAddr>, ConfigError> {
    let list = list.as_array().ok_or(ConfigError::Form {
        key,
        form,
        source: None,
    })?;
    list.iter()
        .map(|entry| {
            let text = entry.as_str().ok_or(ConfigError::Form {
                key,
                form,
                source: None,
            })?;
            let plain = || {
                text.parse::<IpAddr>()
                    .map(|address| SocketAddr::new(address, DNS_PORT))
            };
            text.parse()
                .or_else(|_| plain())
                .map_err(|_| ConfigError::Address {
                    key,
                    value: text.to_owned(),
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[(&str, &str)]) -> Result<ForwardConfig, ConfigError> {
        let data = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        ForwardConfig::parse(&data)
    }

    #[test]
    fn the_documented_example() {
        let config = parse(&[
            (
                STUB_DOMAINS,
                r#"{"abc.com": ["1.2.3.4"], "my.cluster.local": ["2.3.4.5:5353", "fd00::1", "[fd00::2]:54"]}"#,
            ),
            (UPSTREAM_NAMESERVERS, r#"["8.8.8.8", "8.8.4.4"]"#),
            ("federations", "ignored"),
        ]);
        let config = config.expect("valid");
        let text = format!("{config:?}");
        assert_eq!(
            text,
            "ForwardConfig { stub_domains: [(my.cluster.local., [2.3.4.5:5353, [fd00::1]:53, [fd00::2]:54]), \
             (abc.com., [1.2.3.4:53])], upstream: Some([8.8.8.8:53, 8.8.4.4:53]) }"
        );
        assert_eq!(parse(&[]).expect("valid"), ForwardConfig::default());
        assert_eq!(
            parse(&[(STUB_DOMAINS, " ")]).expect("valid"),
            ForwardConfig::default()
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (key, value, expected) in [
            (STUB_DOMAINS, "{", "`stubDomains` is not valid JSON"),
            (STUB_DOMAINS, r#"["a"]"#, "`stubDomains` is not valid JSON"),
            (STUB_DOMAINS, r#"{"a..b": []}"#, "`stubDomains` has a key"),
            (STUB_DOMAINS, r#"{"a": ["host"]}"#, "`stubDomains` has `host`"),
            (
                UPSTREAM_NAMESERVERS,
                r#"["1.1.1.1","1.1.1.1","1.1.1.1","1.1.1.1"]"#,
                "more than three",
            ),
            (
                UPSTREAM_NAMESERVERS,
                "[1]",
                "`upstreamNameservers` is not valid JSON",
            ),
        ] {
            let error = parse(&[(key, value)]).expect_err(value).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
