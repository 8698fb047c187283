//! Postgres and ClickHouse as an analyst sees them: SQL in, text out.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::http;
use super::namespace::Namespace;

/// One row: column -> text, `None` for null.
pub(crate) type Row = BTreeMap<String, Option<String>>;

/// A session at Postgres.
pub(crate) struct Postgres {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Postgres {
    pub(crate) fn connect(namespace: &Namespace) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&namespace.stack.postgres, NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Self { runtime, client })
    }

    /// Runs a statement; gives its rows.
    pub(crate) fn query(&self, sql: &str) -> Result<Vec<Row>, String> {
        let messages = self.runtime.block_on(self.client.simple_query(sql));
        let messages = messages.map_err(|error| format!("{sql}: {error:?}"))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                row.columns()
                    .iter()
                    .enumerate()
                    .map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned)))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// Runs a statement at ClickHouse.
pub(crate) fn execute(namespace: &Namespace, sql: &str) -> Result<String, String> {
    let stack = &namespace.stack;
    let settings = "output_format_json_quote_decimals=1&output_format_json_quote_64bit_integers=1";
    let url = format!("{}/?{settings}", stack.clickhouse.trim_end_matches('/'));
    let headers = [
        ("X-ClickHouse-User", stack.clickhouse_user.as_str()),
        ("X-ClickHouse-Key", stack.clickhouse_password.as_str()),
    ];
    match http::request("POST", &url, &headers, sql) {
        Ok((200, body)) => Ok(body),
        Ok((status, body)) => Err(format!("{sql}: {status} {body}")),
        Err(error) => Err(format!("{sql}: {error}")),
    }
}

/// Asks ClickHouse; numbers come as text, too.
pub(crate) fn analytics(namespace: &Namespace, sql: &str) -> Result<Vec<Row>, String> {
    let text = execute(namespace, &format!("{sql} FORMAT JSONEachRow"))?;
    text.lines()
        .map(|line| {
            let fields: serde_json::Map<String, Value> =
                serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            let text = |value| match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            };
            Ok(fields.into_iter().map(|(name, value)| (name, text(value))).collect())
        })
        .collect()
}

/// A number without trailing zeros, so that equal amounts have equal text.
pub(crate) fn plain(text: &str) -> String {
    let number: Decimal = text.parse().unwrap_or_else(|error| panic!("{error}: {text:?}"));
    number.normalize().to_string()
}

pub(crate) fn drop_schemas(namespace: &Namespace) -> Result<(), String> {
    let postgres = Postgres::connect(namespace).map_err(|error| error.to_string())?;
    let pattern = format!("starts_with(nspname, '{}_')", namespace.name);
    let schemas = postgres.query(&format!("SELECT nspname FROM pg_namespace WHERE {pattern}"))?;
    for schema in schemas.iter().filter_map(|row| row["nspname"].as_deref()) {
        postgres.query(&format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"))?;
    }
    Ok(())
}

pub(crate) fn drop_databases(namespace: &Namespace) -> Result<(), String> {
    let name = &namespace.name;
    let sql = format!("SELECT name FROM system.databases WHERE startsWith(name, '{name}_')");
    for row in analytics(namespace, &sql)? {
        let database = row["name"].as_deref().unwrap_or_default();
        execute(namespace, &format!("DROP DATABASE IF EXISTS {database} SYNC"))?;
    }
    Ok(())
}
