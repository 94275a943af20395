//! The one step before the replicas: database, schema, seed, and the service's own account. Safe to repeat.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use anyhow::{Context, bail, ensure};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::{options, session};

/// What the service may do: no DELETE, no DDL, no other table.
const GRANTS: [&str; 4] = [
    "SELECT, INSERT, UPDATE ON `{db}`.coupon",
    "SELECT, INSERT ON `{db}`.wallet",
    "SELECT, UPDATE ON `{db}`.event",
    "EXECUTE ON PROCEDURE `{db}`.issue_batch",
];

/// One migration of a database at a time. sqlx takes a lock of its own with a time-out of -1, which is for ever to `MySQL` and
/// no lock at all to `MariaDB`. It goes with the connection.
const ALONE: &str = "SELECT GET_LOCK(LEFT(CONCAT('coupon-rush migrate ', DATABASE()), 64), 60)";

/// Makes the database that `service_url` names, with the account it names, using the account of `admin_url`.
///
/// `MySQL` runs schema changes outside transactions: a step that failed half way is reported as dirty by the next run.
pub async fn migrate(admin_url: &str, service_url: &str) -> anyhow::Result<()> {
    let service = url(service_url).context("DATABASE_URL")?;
    let database = identifier(service.get_database().context("DATABASE_URL names no database")?)?.to_owned();
    let admin = url(admin_url).context("ADMIN_DATABASE_URL")?;
    let mut connection = connect(&admin).await.context("cannot connect with ADMIN_DATABASE_URL")?;
    run(&mut connection, format!("CREATE DATABASE IF NOT EXISTS `{database}`")).await?;
    connection.close().await?;

    let mut connection = connect(&admin.database(&database)).await?;
    let alone: Option<i64> = sqlx::query_scalar(ALONE).fetch_one(&mut connection).await?;
    ensure!(alone == Some(1), "another migration of {database} has been at work for a minute: wait until it has ended");
    sqlx::migrate!().run(&mut connection).await.context("cannot apply migrations/")?;
    if service_url != admin_url {
        account(&mut connection, &database, service_url).await.context("cannot set up the service's account")?;
    }
    connection.close().await?;
    Ok(())
}

async fn connect(options: &MySqlConnectOptions) -> anyhow::Result<MySqlConnection> {
    let mut connection = options.connect().await?;
    connection.execute(session::OF_MIGRATION).await?;
    Ok(connection)
}

fn url(url: &str) -> anyhow::Result<MySqlConnectOptions> {
    options(url).map_err(|_| anyhow::anyhow!("is not a mysql://user:password@host:port/database URL"))
}

/// Creates the account if it is missing and gives it the password of the URL and exactly the rights it needs.
async fn account(connection: &mut MySqlConnection, database: &str, service_url: &str) -> anyhow::Result<()> {
    let (user, password) = credentials(service_url)?;
    run(connection, format!("CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}'")).await?;
    run(connection, format!("ALTER USER '{user}'@'%' IDENTIFIED BY '{password}'")).await?;
    for grant in GRANTS {
        run(connection, format!("GRANT {} TO '{user}'@'%'", grant.replace("{db}", database))).await?;
    }
    Ok(())
}

/// Account statements take no parameters; every name that goes into one is checked by [`identifier`] first.
async fn run(connection: &mut MySqlConnection, statement: String) -> anyhow::Result<()> {
    connection.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

/// User and password of a `mysql://user:password@…` URL.
fn credentials(service_url: &str) -> anyhow::Result<(&str, &str)> {
    let authority = service_url.strip_prefix("mysql://").and_then(|rest| rest.split('/').next());
    let Some((user, password)) =
        authority.and_then(|it| it.rsplit_once('@')).and_then(|(account, _)| account.split_once(':'))
    else {
        bail!("DATABASE_URL has no user and password");
    };
    Ok((identifier(user)?, identifier(password)?))
}

/// Lets letters, digits, `_` and `-` through: what needs no quoting in a URL nor in SQL.
fn identifier(name: &str) -> anyhow::Result<&str> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        bail!("database, user and password in DATABASE_URL may contain only letters, digits, `_` and `-`");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_credentials_are_taken_from_a_url() {
        assert_eq!(credentials("mysql://coupon:pw-1@127.0.0.1:3306/db").unwrap(), ("coupon", "pw-1"));
        for bad in ["mysql://127.0.0.1/db", "mysql://u@h/db", "mysql://u:p'w@h/db", "postgres://u:p@h/db"] {
            assert!(credentials(bad).is_err(), "{bad}");
        }
    }
}
