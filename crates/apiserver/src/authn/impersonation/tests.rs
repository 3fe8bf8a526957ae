use super::*;
use crate::fake_reader::FakeReader;

/// Allows what is in its list: `resource[/subresource] namespace/name`.
struct Only(&'static [&'static str]);

impl Authorizer for Only {
    fn authorize(&self, a: &Attributes, _reader: &dyn Reader) -> Decision {
        assert_eq!((a.user.name.as_str(), a.verb.as_str()), ("caller", "impersonate"));
        let slash = if a.subresource.is_empty() { "" } else { "/" };
        let asked = format!(
            "{}{slash}{} {}/{}",
            a.resource, a.subresource, a.namespace, a.name
        );
        if self.0.contains(&asked.as_str()) {
            Decision::Allow
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

fn ask(headers: &[(&'static str, &str)], allowed: &'static [&'static str]) -> Result<UserInfo, Status> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    let authorizers: [Arc<dyn Authorizer>; 1] = [Arc::new(Only(allowed))];
    impersonate(
        UserInfo::new("caller", &["g"]),
        &map,
        &authorizers,
        &FakeReader::default(),
    )
}

#[test]
fn without_headers_nothing_changes() {
    assert_eq!(ask(&[], &[]).unwrap(), UserInfo::new("caller", &["g"]));
}

#[test]
fn each_part_must_be_allowed() {
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
        ("impersonate-extra-scopes%2fx", "view"),
        ("impersonate-uid", "7"),
    ];
    let user = ask(
        &headers,
        &[
            "users /jane",
            "groups /a",
            "groups /b",
            "userextras/scopes/x /view",
            "uids /7",
        ],
    )
    .unwrap();
    assert_eq!(user.name, "jane");
    assert_eq!(user.uid, "7");
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra["scopes/x"], ["view"]);
    let refused = ask(&headers, &["users /jane", "groups /a"]).unwrap_err();
    assert_eq!(
        refused.message,
        r#"groups "b" is forbidden: User "caller" cannot impersonate resource "groups" in API group "" at the cluster scope"#
    );
}

#[test]
fn groups_follow_from_the_name() {
    let account = ask(
        &[("impersonate-user", "system:serviceaccount:n:a")],
        &["serviceaccounts n/a"],
    )
    .unwrap();
    assert_eq!(
        account.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:n",
            "system:authenticated"
        ]
    );
    let anonymous = ask(
        &[("impersonate-user", "system:anonymous")],
        &["users /system:anonymous"],
    )
    .unwrap();
    assert_eq!(anonymous.groups, ["system:unauthenticated"]);
}

#[test]
fn groups_alone_are_no_user() {
    assert_eq!(
        ask(&[("impersonate-group", "a")], &["groups /a"])
            .unwrap_err()
            .code,
        400
    );
}
