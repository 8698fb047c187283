//! The tables and views of a domain in ClickHouse: definition -> a table a generation, and views
//! over the one in use.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clickhouse::{Blocks, ClickHouse};
use super::clickhouse_place::{Shown, made_by};
use super::generation::tables_hash;
use super::migration::hash;
use super::{Error, Store};

/// How long a start waits while another generation takes the place of the one in use.
const HELD_MAX: Duration = Duration::from_secs(30);
const HELD_PAUSE: Duration = Duration::from_millis(100);

impl<B: Blocks> ClickHouse<B> {
    pub(super) fn made_by(&self) -> String {
        let definition = self.definition();
        format!("version {} tables {}", definition.version, tables_hash(definition))
    }

    /// Fills in the names, and what the comment is to say.
    fn fill(&self, template: &str, generation: i32, comment: &str) -> String {
        template
            .replace("{database}", self.database.name())
            .replace("{table}", &self.table_of(generation))
            .replace("{made_by}", comment)
            .replace("{in_use}", comment)
    }

    fn views_hash(&self) -> String {
        hash(self.definition().views.iter().copied())
    }

    /// Makes the tables of a generation that are not there yet.
    pub(super) async fn make_tables(&self, generation: i32, made_by: &str) -> Result<(), Error> {
        for table in self.definition().tables {
            let statement = self.fill(table, generation, made_by);
            let action = format!("making table {}", self.table_of(generation));
            self.database.execute(&statement, &action).await?;
        }
        Ok(())
    }

    /// Shows users a generation, in one step: all views read the first one, which changes. Where
    /// they are other views than before, they follow. Says how long that step took.
    pub(super) async fn show(&self, generation: i32) -> Result<Duration, Error> {
        let action = format!("making the views of {}", self.definition().domain);
        let views = self.definition().views.split_first();
        let Some((first, others)) = views else { return Ok(Duration::ZERO) };
        let (before, views) = (self.shown().await?, self.views_hash());
        let are_others = before.is_none_or(|shown| shown.views != views)
            || self.count_views().await? < others.len();
        let views = if are_others { String::new() } else { views };
        let mut shown = Shown { generation, views, held_until: None };
        let statement = self.fill(first, generation, &shown.to_string());
        let started = Instant::now();
        self.database.execute(&statement, &action).await?;
        let took = started.elapsed();
        if are_others {
            for view in others {
                let statement = self.fill(view, generation, "");
                self.database.execute(&statement, &action).await?;
            }
            shown.views = self.views_hash();
            let statement = self.fill(first, generation, &shown.to_string());
            self.database.execute(&statement, &action).await?;
        }
        Ok(took)
    }

    /// What the views show; `None` if there are none.
    pub(super) async fn shown(&self) -> Result<Option<Shown>, Error> {
        let comment = self.database.comment(self.view()).await?;
        if let Some(shown) = comment.as_deref().and_then(Shown::read) {
            return Ok(Some(shown));
        }
        // Before there was that view, another one named the generation.
        let comment = self.database.comment(&format!("{}_event", self.view())).await?;
        Ok(comment.as_deref().and_then(Shown::read))
    }

    /// Waits until the generation in use may be written.
    async fn shown_and_free(&self) -> Result<Option<Shown>, Error> {
        let tries = HELD_MAX.as_millis() / HELD_PAUSE.as_millis();
        for _ in 0..tries {
            if !self.in_use().await?.is_held {
                break;
            }
            tokio::time::sleep(HELD_PAUSE).await;
        }
        self.shown().await
    }

    pub(super) async fn open_in_use(&self) -> Result<(), Error> {
        let shown = self.shown_and_free().await?;
        let live = shown.as_ref().map_or(1, |shown| shown.generation);
        self.make_tables(live, &self.made_by()).await?;
        self.open(live).await?;
        // Only where they differ: a start must not undo what is being switched meanwhile.
        let is_shown = shown.is_some_and(|shown| shown.views == self.views_hash());
        if !is_shown || self.count_views().await? + 1 < self.definition().views.len() {
            self.show(live).await?;
        }
        self.join_domains().await
    }

    /// Checks that this code may write a generation's table.
    pub(super) async fn open(&self, generation: i32) -> Result<(), Error> {
        self.generation.store(generation, Ordering::Relaxed);
        let comment = self.database.comment(&self.table()).await?.unwrap_or_default();
        if made_by(&comment).0 == self.made_by() {
            return Ok(());
        }
        Err(Error::Outdated { projection: self.name(), generation })
    }

    /// How many views there are besides the one that the others read.
    async fn count_views(&self) -> Result<usize, Error> {
        let count = self
            .database
            .client()
            .query_raw(
                "SELECT count() FROM system.tables WHERE database = {database: String}
                 AND engine = 'View' AND startsWith(name, {prefix: String})",
            )
            .param("database", self.database.name())
            .param("prefix", format!("{}_", self.definition().domain))
            .fetch_one::<u64>()
            .await
            .map_err(|source| self.database.failed(source, "counting the views"))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Points `event`, the view over all domains, at those that there are.
    async fn join_domains(&self) -> Result<(), Error> {
        let database = self.database.name();
        let action = "making the view over all domains";
        // Two domains may start at once: whoever is last sees both.
        for _ in 0..5 {
            let domains = self.domains().await?;
            let parts: Vec<String> =
                domains.iter().map(|view| format!("SELECT * FROM {database}.{view}")).collect();
            let statement = format!(
                "CREATE OR REPLACE VIEW {database}.event AS\n{}\n\
                 COMMENT 'Every event of every domain, once each'",
                parts.join("\nUNION ALL\n")
            );
            self.database.execute(&statement, action).await?;
            if self.domains().await? == domains {
                break;
            }
        }
        Ok(())
    }

    async fn domains(&self) -> Result<Vec<String>, Error> {
        self.database
            .client()
            .query_raw(
                "SELECT name FROM system.tables WHERE database = {database: String}
                 AND engine = 'View' AND endsWith(name, '_event') ORDER BY name",
            )
            .param("database", self.database.name())
            .fetch_all::<String>()
            .await
            .map_err(|source| self.database.failed(source, "listing the domains' views"))
    }
}
