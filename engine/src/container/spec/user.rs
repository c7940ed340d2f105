//! Users and groups of a container, from the passwd and group files of its root.

use crate::container::ContainerError;
use crate::sys::inside::Inside;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Resolves `user[:group]` and `--group-add` inside `root`.
pub(crate) fn resolve(root: &Inside, user: &str, extra: &[String]) -> Result<User, ContainerError> {
    let passwd = root.read("/etc/passwd").unwrap_or_default();
    let group = root.read("/etc/group").unwrap_or_default();
    lookup(&passwd, &group, user, extra)
}

fn lookup(passwd: &str, group: &str, user: &str, extra: &[String]) -> Result<User, ContainerError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = parse_number(name)?;
    let mut result = User::default();
    let mut login = None;
    let entry = fields(passwd, 4)
        .find(|entry| entry[0] == name || (number.is_some() && entry[2].parse().ok() == number));
    match entry {
        Some(entry) => {
            // What the image's file says is not to wrap round to root (CVE-2024-40635).
            result.uid = parse_number(entry[2])?.ok_or_else(out_of_range)?;
            result.gid = parse_number(entry[3])?.ok_or_else(out_of_range)?;
            login = Some(entry[0].to_owned());
        }
        None => match number {
            Some(number) => result.uid = number,
            // Compat: the words of runc's user lookup.
            None => {
                return Err(ContainerError::Invalid(format!(
                    "unable to find user {name}: no matching entries in passwd file"
                )));
            }
        },
    }
    match group_name.filter(|group| !group.is_empty()) {
        Some(wanted) => result.gid = group_id(group, wanted)?,
        None => {
            if let Some(login) = &login {
                for entry in fields(group, 4) {
                    if entry[3].split(',').any(|member| member == login)
                        && let Ok(gid) = entry[2].parse()
                    {
                        result.groups.push(gid);
                    }
                }
            }
        }
    }
    for wanted in extra {
        let gid = group_id(group, wanted)?;
        if !result.groups.contains(&gid) {
            result.groups.push(gid);
        }
    }
    // Compat: since the fix of CVE-2022-36109 the primary group is listed as well.
    if !result.groups.contains(&result.gid) {
        result.groups.insert(0, result.gid);
    }
    Ok(result)
}

fn group_id(group: &str, wanted: &str) -> Result<u32, ContainerError> {
    if let Some(entry) = fields(group, 3).find(|entry| entry[0] == wanted) {
        return parse_number(entry[2])?.ok_or_else(out_of_range);
    }
    parse_number(wanted)?.ok_or_else(|| {
        ContainerError::Invalid(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))
    })
}

/// A number in range; `None` for what is a name.
fn parse_number(text: &str) -> Result<Option<u32>, ContainerError> {
    let Ok(number) = text.parse::<i64>() else { return Ok(None) };
    match u32::try_from(number) {
        Ok(id) if number <= i64::from(i32::MAX) => Ok(Some(id)),
        _ => Err(out_of_range()),
    }
}

/// Compat: the words of runc's user lookup.
fn out_of_range() -> ContainerError {
    ContainerError::Invalid("uids and gids must be in range 0-2147483647".to_owned())
}

fn fields(text: &str, least: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.trim().split(':').collect::<Vec<_>>())
        .filter(move |entry| entry.len() >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nbob:x:1000:100::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:bob,root\n";

    #[test]
    fn names_numbers_and_groups_resolve() {
        let look = |user: &str| lookup(PASSWD, GROUP, user, &[]).unwrap();
        assert_eq!(look(""), User { uid: 0, gid: 0, groups: vec![0, 10] });
        assert_eq!(look("bob"), User { uid: 1000, gid: 100, groups: vec![100, 10] });
        assert_eq!(look("1000"), look("bob"));
        assert_eq!(look("bob:wheel"), User { uid: 1000, gid: 10, groups: vec![10] });
        assert_eq!(look("77:88"), User { uid: 77, gid: 88, groups: vec![88] });
    }

    #[test]
    fn numbers_out_of_range_are_refused_wherever_they_come_from() {
        let passwd = "low:x:-1:0::/:/bin/sh\nhigh:x:4294967296:0::/:/bin/sh\n\
                      odd:x:five:0::/:/bin/sh\ngroup:x:5:2147483648::/:/bin/sh\n";
        let group = "big:x:4294967296:\n";
        let all =
            ["low", "high", "odd", "group", "-1", "2147483648", "4294967296", "0:big", "0:-1"];
        for user in all {
            let error = lookup(passwd, group, user, &[]).unwrap_err().to_string();
            assert_eq!(error, "uids and gids must be in range 0-2147483647", "{user}");
        }
        assert_eq!(lookup(passwd, group, "2147483647", &[]).unwrap().uid, 2_147_483_647);
    }

    #[test]
    fn unknown_names_are_told() {
        let error = lookup(PASSWD, GROUP, "eve", &[]).unwrap_err().to_string();
        assert_eq!(error, "unable to find user eve: no matching entries in passwd file");
        assert!(lookup(PASSWD, GROUP, "", &["nope".to_owned()]).is_err());
    }

    proptest! {
        #[test]
        fn no_file_makes_an_id_wrap_round(
            passwd in "((root|bob|a|)(:[a-z0-9-]{0,3}){0,5}\n|bob:x:[0-9-]{1,22}:[0-9-]{1,22}::/:/\n){0,4}",
            group in "((root|g)(:[a-z0-9,-]{0,12}){0,4}\n){0,4}",
            user in "(bob|root|[0-9-]{0,12})(:(g|[0-9-]{0,12}))?",
            extra in proptest::option::of("(g|[0-9-]{0,12})"),
        ) {
            if let Ok(found) = lookup(&passwd, &group, &user, extra.as_slice()) {
                prop_assert!(found.uid.max(found.gid) <= 0x7fff_ffff);
                prop_assert!(found.groups.contains(&found.gid));
                // Who is root was called so: by name, by number, or by nobody.
                let name = user.split(':').next().unwrap_or_default();
                let zero = |text: &str| text.parse::<i64>() == Ok(0);
                let said = name.is_empty() || zero(name) || passwd.lines().any(|line| {
                    let mut parts = line.trim().split(':');
                    parts.next() == Some(name) && parts.nth(1).is_some_and(zero)
                });
                prop_assert!(found.uid != 0 || said);
            }
        }
    }
}
