//! Who a process is, by the image's `/etc/passwd` and `/etc/group`. Upstream counterpart: `moby/sys/user`, containerd's
//! `oci.WithUser`.

use crate::spec::User;

/// The identity of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one among them.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    })
}

/// Name, id and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// Looks a user up. Numeric users need not be in the files; a name is tried first, as it may consist of digits.
pub(super) fn identify(user: &User, passwd: &str, group: &str) -> Result<Identity, String> {
    let (wanted, wanted_group) = match user.user.split_once(':') {
        Some((wanted, group)) => (wanted, Some(group).filter(|group| !group.is_empty())),
        None => (user.user.as_str(), None),
    };
    let number: Option<u32> = if wanted.is_empty() {
        Some(0)
    } else {
        wanted.parse().ok()
    };
    let account = accounts(passwd)
        .find(|account| !wanted.is_empty() && account.name == wanted)
        .or_else(|| accounts(passwd).find(|account| Some(account.uid) == number));
    let uid = account
        .as_ref()
        .map(|account| account.uid)
        .or(number)
        .ok_or_else(|| format!("unable to find user {wanted}: no matching entries in passwd file"))?;
    let mut gid = account.as_ref().map_or(0, |account| account.gid);
    if let Some(wanted) = wanted_group {
        gid = groups(group)
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?;
    }
    let gid = user.gid.unwrap_or(gid);
    let mut all = vec![gid];
    if let Some(account) = account.as_ref().filter(|_| !user.strict_groups) {
        let member = |members: &str| members.split(',').any(|name| name == account.name);
        all.extend(
            groups(group)
                .filter(|(.., members)| member(members))
                .map(|(_, gid, _)| gid),
        );
    }
    all.extend(&user.supplementary_groups);
    all.sort_unstable();
    all.dedup();
    let home = account
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned();
    Ok(Identity {
        uid,
        gid,
        groups: all,
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n1000:x:7:8::/odd:\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:50:web,other\nopen:x:60:other\n";

    fn user(user: &str) -> User {
        User {
            user: user.to_owned(),
            ..User::default()
        }
    }

    fn identity(wanted: &str) -> (u32, u32, Vec<u32>, String) {
        let found = identify(&user(wanted), PASSWD, GROUP).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn names_numbers_and_groups() {
        assert_eq!(identity(""), (0, 0, vec![0], "/root".into()));
        assert_eq!(identity("web"), (33, 34, vec![34, 50], "/srv".into()));
        assert_eq!(identity("33"), (33, 34, vec![34, 50], "/srv".into()));
        assert_eq!(identity("web:log"), (33, 50, vec![50], "/srv".into()));
        assert_eq!(identity("web:77"), (33, 77, vec![50, 77], "/srv".into()));
        assert_eq!(identity("4711"), (4711, 0, vec![0], "/".into()));
        assert_eq!(identity("4711:5"), (4711, 5, vec![5], "/".into()));
        assert_eq!(identity("1000"), (7, 8, vec![8], "/odd".into()));
    }

    #[test]
    fn the_pods_security_context_overrides_and_adds() {
        let wanted = User {
            gid: Some(9),
            supplementary_groups: vec![3, 9],
            ..user("web")
        };
        assert_eq!(identify(&wanted, PASSWD, GROUP).unwrap().groups, [3, 9, 50]);
        let strict = User {
            strict_groups: true,
            ..wanted
        };
        assert_eq!(identify(&strict, PASSWD, GROUP).unwrap().groups, [3, 9]);
    }

    #[test]
    fn unknown_names_are_told() {
        let message = identify(&user("nobody"), PASSWD, GROUP).unwrap_err();
        assert_eq!(
            message,
            "unable to find user nobody: no matching entries in passwd file"
        );
        let message = identify(&user("web:none"), PASSWD, GROUP).unwrap_err();
        assert_eq!(
            message,
            "unable to find group none: no matching entries in group file"
        );
        assert!(identify(&user("-1"), PASSWD, GROUP).is_err());
    }
}
