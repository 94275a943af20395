//! The URL of the database: `mysql://user:password@host:port/database`, or with several hosts where the database is a group,
//! `mysql://user:password@host1:port,host2:port,host3:port/database`.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;

/// What a URL may say after its `?`. sqlx passes over what it does not know, so that a misspelt `ssl_mode` would be no TLS.
///
/// What a session sets is not among them: windows are stored in UTC, for one, and statements compare them with the session's clock.
const PARAMETERS: [&str; 6] = ["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket", "statement-cache-capacity"];

/// Parses a URL: how to connect to each of its hosts. Statements are never logged: they carry user ids.
pub(super) fn members(url: &str) -> Result<Vec<MySqlConnectOptions>, sqlx::Error> {
    // sqlx takes any scheme.
    let rest = url.strip_prefix("mysql://").ok_or_else(|| refused("the URL does not begin with mysql://"))?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (account, hosts) = authority.rsplit_once('@').map_or(("", authority), |(account, hosts)| (account, hosts));
    // Such a password would be read as host and port, and the rest as a database. The value of a parameter may have an @.
    if account.contains('#') || rest.split('=').next().is_some_and(|rest| rest.contains('@')) {
        return Err(refused("the URL has an account with a plain /, ? or #: write %2F, %3F or %23"));
    }
    let mut names = parameters(url).map(|parameter| parameter.split('=').next().unwrap_or_default());
    if !names.all(|name| PARAMETERS.contains(&name)) {
        return Err(refused(&format!("the URL has a parameter that is none of {}", PARAMETERS.join(", "))));
    }
    let at = if account.is_empty() { "" } else { "@" };
    let hosts: Vec<_> = hosts.split(',').collect();
    let has_several = hosts.len() > 1;
    if has_several && hosts.iter().any(|host| host.is_empty() || host.starts_with(':')) {
        return Err(refused("the URL has a comma too many, or a host without a name: write host1:port,host2:port"));
    }
    let one = |host: &&str| MySqlConnectOptions::from_str(&format!("mysql://{account}{at}{host}{rest}")).map(bare);
    let members: Vec<_> = hosts.iter().map(one).collect::<Result<_, _>>()?;
    if has_several && members.iter().any(|member| member.get_socket().is_some()) {
        return Err(refused("the URL has a socket and several hosts: a socket leads to one server alone"));
    }
    let address = |member: &MySqlConnectOptions| (member.get_host().to_owned(), member.get_port());
    if (1..members.len()).any(|n| members[..n].iter().any(|member| address(member) == address(&members[n]))) {
        return Err(refused("the URL names a host twice: name each member once"));
    }
    Ok(members.into_iter().map(ConnectOptions::disable_statement_logging).collect())
}

/// Takes the brackets of an IPv6 address away: with them sqlx connects, and has no name for TLS.
fn bare(member: MySqlConnectOptions) -> MySqlConnectOptions {
    let host = member.get_host().trim_matches(['[', ']']).to_owned();
    member.host(&host)
}

fn refused(reason: &str) -> sqlx::Error {
    sqlx::Error::Configuration(reason.into())
}

/// What comes after the URL's `?`.
fn parameters(url: &str) -> impl Iterator<Item = &str> {
    url.split_once('?').into_iter().flat_map(|(_, query)| query.split('&')).filter(|parameter| !parameter.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_would_be_passed_over_is_refused() {
        for bad in [
            "ssl_mode=VERIFY_CA",
            "ssl-mode=VERIFY_CA&sslca=x",
            "SSL-MODE=REQUIRED",
            "ssl-mode=SURELY",
            "tls",
            "timezone=%2B09:00",
            "charset=latin1",
        ] {
            assert!(members(&format!("mysql://u:p@h/c?{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_host_of_a_url_is_a_member_with_the_same_account_database_and_parameters() {
        for (url, hosts) in [
            ("mysql://u:p@h/c", vec![("h", 3306)]),
            ("mysql://h:3307/c", vec![("h", 3307)]),
            ("mysql://u:p@h1:3307,h2,[::1]:3309/c?ssl-mode=REQUIRED", vec![("h1", 3307), ("h2", 3306), ("::1", 3309)]),
            ("mysql://u:p%40@h:1,h:2?ssl-mode=REQUIRED", vec![("h", 1), ("h", 2)]),
        ] {
            let members = members(url).unwrap();
            let found: Vec<_> = members.iter().map(|member| (member.get_host(), member.get_port())).collect();
            assert_eq!(found, hosts, "{url}");
            assert!(members.iter().all(|member| member.get_database() == members[0].get_database()), "{url}");
        }
    }

    #[test]
    fn a_password_that_a_url_cannot_hold_as_it_is_is_refused_with_the_cure() {
        for bad in ["p/w", "12/w", "p?w", "p#w", "12#w", "p@h/w", "p@h?w", "p@/w"] {
            let error = members(&format!("mysql://u:{bad}@h/c")).expect_err(bad);
            assert!(error.to_string().contains("write %2F, %3F or %23"), "{bad}: {error}");
        }
        for good in ["p%2Fw", "p%3Fw", "p%23w", "p@w", "p,w", "p:w", "p%25w"] {
            let members = members(&format!("mysql://u:{good}@h/c")).unwrap();
            assert_eq!((members[0].get_host(), members[0].get_database()), ("h", Some("c")), "{good}");
        }
    }

    #[test]
    fn what_is_no_list_of_different_hosts_is_refused_with_the_reason() {
        for (bad, reason) in [
            ("mysql://u:p@h1,,h2/c", "comma too many"),
            ("mysql://u:p@h1,/c", "comma too many"),
            ("mysql://u:p@,h1/c", "comma too many"),
            ("mysql://u:p@h1,:3307/c", "without a name"),
            ("mysql://u:p@h1,h2:3307,h1:3306/c", "twice"),
            ("mysql://u:p@h1,h2/c?socket=/run/mysqld.sock", "a socket"),
            ("mysql://u:p@h1,h2:port/c", "port"),
            ("postgres://u:p@h/c", "mysql://"),
        ] {
            let error = members(bad).expect_err(bad);
            assert!(error.to_string().contains(reason), "{bad}: {error}");
        }
    }
}
