//! The steps before the replicas: database, schema and the service's own account; and, where it is wanted, the laboratory's
//! event. Safe to repeat.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sqlx::migrate::{Migrate, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tokio::time::timeout;

use super::server::{Server, timed_out};
use super::{number, session, url};

/// What the service may do: no DELETE, no DDL, no other table.
const GRANTS: [&str; 4] = [
    "SELECT, INSERT, UPDATE ON `{db}`.coupon",
    "SELECT, INSERT ON `{db}`.wallet",
    "SELECT, UPDATE ON `{db}`.event",
    "EXECUTE ON PROCEDURE `{db}`.issue_batch",
];

/// What it may do beside that in a group: ask whether the server is the primary.
const GRANT_IN_A_GROUP: &str = "SELECT ON performance_schema.replication_group_members";

/// Longest wait for a primary.
const PRIMARY_PATIENCE: Duration = Duration::from_secs(30);

/// Longest wait for a connection. A server that is frozen takes connections and says nothing.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// One migration of a database at a time. In a group it excludes those at the same primary; should another member take over in the
/// middle, a second run does what is left. sqlx takes a lock of its own with a time-out of -1, which is for ever to `MySQL` and
/// no lock at all to `MariaDB`. It goes with the connection.
const ALONE: &str = "SELECT GET_LOCK(LEFT(CONCAT('coupon-rush migrate ', ?), 64), 60)";

/// The migration that [`seed`] runs instead: only databases that had it already know it as one.
const SEED_VERSION: i64 = 5;

/// `ER_TABLE_EXISTS_ERROR`, `ER_DUP_FIELDNAME`, `ER_SP_ALREADY_EXISTS`: what a step is told that was taken before.
const TAKEN_BEFORE: [u16; 3] = [1050, 1060, 1304];

/// The event, and after it its coupons.
const SEED: &str = include_str!("../../migrations/0005_seed.sql");

/// Makes the database that `service_url` names, with the account it names, using the account of `admin_url`.
///
/// `MySQL` runs schema changes outside transactions: a step that was broken off is finished by the next run.
pub async fn migrate(admin_url: &str, service_url: &str) -> anyhow::Result<()> {
    let database = database(service_url)?;
    let mut connection = connect(admin_url, None).await?;
    alone(&mut connection, &database).await?;
    run(&mut connection, format!("CREATE DATABASE IF NOT EXISTS `{database}`"))
        .await
        .context("cannot make the database")?;
    run(&mut connection, format!("USE `{database}`")).await?;
    let migrator = migrator(&mut connection).await?;
    finish(&mut connection, &migrator).await?;
    migrator.run(&mut connection).await.context("cannot apply migrations/")?;
    if service_url != admin_url {
        account(&mut connection, &database, service_url).await.context("cannot set up the service's account")?;
    }
    connection.close().await?;
    Ok(())
}

/// The migrations of this database.
async fn migrator(connection: &mut MySqlConnection) -> anyhow::Result<Migrator> {
    let mut migrator = sqlx::migrate!();
    connection.ensure_migrations_table(&migrator.table_name).await?;
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    if !applied.iter().any(|migration| migration.version == SEED_VERSION) {
        migrator.migrations.to_mut().retain(|migration| migration.version != SEED_VERSION);
    }
    Ok(migrator)
}

/// Finishes a step at which an earlier run was broken off, by a failover or a kill. It is one statement, which the server has carried
/// out as a whole or not at all.
async fn finish(connection: &mut MySqlConnection, migrator: &Migrator) -> anyhow::Result<()> {
    let dirty = connection.dirty_version(&migrator.table_name).await?;
    let Some(step) = migrator.iter().find(|step| Some(step.version) == dirty) else { return Ok(()) };
    match connection.execute(step.sql.clone()).await {
        Err(error) if !TAKEN_BEFORE.contains(&number(&error)) => {
            Err(error).context("cannot take the step again that was broken off")
        }
        _ => {
            let taken = "UPDATE _sqlx_migrations SET success = TRUE WHERE version = ?";
            sqlx::query(taken).bind(step.version).execute(connection).await?;
            Ok(())
        }
    }
}

/// Makes the laboratory's event with its coupons, or when `bare` without any. An event that exists is left as it is, with
/// whatever became of its coupons: then it returns `false`.
pub async fn seed(admin_url: &str, service_url: &str, bare: bool) -> anyhow::Result<bool> {
    let database = database(service_url)?;
    let mut connection = connect(admin_url, Some(&database)).await?;
    alone(&mut connection, &database).await?;
    let events: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM event")
        .fetch_one(&mut connection)
        .await
        .context("there are no tables that could be filled: run `coupon-rush migrate` first")?;
    if events > 0 {
        return Ok(false);
    }
    connection.execute("START TRANSACTION").await?;
    for statement in SEED.split_inclusive(';').take(if bare { 1 } else { usize::MAX }) {
        connection.execute(statement).await.context("cannot make the event")?;
    }
    connection.execute("COMMIT").await?;
    connection.close().await?;
    Ok(true)
}

/// The name of the service's database.
pub(super) fn database(service_url: &str) -> anyhow::Result<String> {
    let members = members(service_url).context("DATABASE_URL")?;
    Ok(identifier(members[0].get_database().context("DATABASE_URL names no database")?)?.to_owned())
}

/// Connects as the administrator, of several members to the primary.
pub(super) async fn connect(admin_url: &str, database: Option<&str>) -> anyhow::Result<MySqlConnection> {
    let mut members = members(admin_url).context("ADMIN_DATABASE_URL")?;
    let primary = if members.len() > 1 { primary(members.clone()).await? } else { 0 };
    let admin = members.swap_remove(primary);
    let admin = database.map_or(admin.clone(), |database| admin.database(database));
    let connected = timeout(CONNECT_PATIENCE, admin.connect()).await.unwrap_or_else(|_| Err(timed_out()));
    let mut connection = connected.context("cannot connect with ADMIN_DATABASE_URL")?;
    connection.execute(session::OF_MIGRATION).await?;
    Ok(connection)
}

/// The place of the primary among several members.
async fn primary(members: Vec<MySqlConnectOptions>) -> anyhow::Result<usize> {
    let server = Server::new(members);
    let found = timeout(PRIMARY_PATIENCE, server.primary()).await;
    Ok(found.context("ADMIN_DATABASE_URL: no member is a primary with a majority")??)
}

/// Waits until no other migration is at work on the database.
async fn alone(connection: &mut MySqlConnection, database: &str) -> anyhow::Result<()> {
    let alone: Option<i64> = sqlx::query_scalar(ALONE).bind(database).fetch_one(connection).await?;
    ensure!(alone == Some(1), "another migration has been at work for a minute: wait until it has ended");
    Ok(())
}

/// How to connect to each host of a URL.
fn members(url: &str) -> anyhow::Result<Vec<MySqlConnectOptions>> {
    url::members(url).map_err(|error| anyhow::anyhow!("is not a mysql://user:password@host:port/database URL: {error}"))
}

/// Creates the account if it is missing and gives it the password of the URL and exactly the rights it needs.
async fn account(connection: &mut MySqlConnection, database: &str, service_url: &str) -> anyhow::Result<()> {
    let (user, password) = credentials(service_url)?;
    run(connection, format!("CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}'")).await?;
    run(connection, format!("ALTER USER '{user}'@'%' IDENTIFIED BY '{password}'")).await?;
    let is_in_group: u64 = sqlx::query_scalar(session::ASK_FOR_GROUP).fetch_one(&mut *connection).await?;
    for grant in GRANTS.into_iter().chain((is_in_group > 0).then_some(GRANT_IN_A_GROUP)) {
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
