//! A few streams in full: their facts and the rows that every store has of them -> each difference
//! by name.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::banking::snapshot::Snapshot;
use super::banking::{DOMAIN, Fold, Table, Tables, account, event};
use super::cell::{Cell, Row};
use super::difference::{Difference, Place};
use super::fact::{Fact, Writers, content, stream_and_sequence};
use super::pass::Part;
use super::snapshots::Found;
use crate::kernel::message::Record;
use crate::kernel::stream::partition_of;
use crate::log::kafka::Error;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};

/// The place of `kafka_offset` in ClickHouse's rows.
const OFFSET_COLUMN: usize = 11;

/// Rows of a store, by stream: the partition that each says it is of, and the row.
pub(super) type Rows = HashMap<String, Vec<(i32, Row)>>;

/// A few streams, with everything that there is of them.
pub(super) struct Detail<'a> {
    pub(super) part: &'a Part,
    recent_from: i64,
    /// The streams' own rows in Postgres, those of their events, and those in ClickHouse.
    pub(super) stream_rows: Rows,
    pub(super) event_rows: Rows,
    pub(super) clickhouse_rows: Rows,
    /// Which offsets of those that ClickHouse names hold which key.
    keys_at: HashMap<i64, Vec<u8>>,
    facts: HashMap<String, Vec<Fact>>,
    /// What is wrong with the records themselves.
    wrong: Vec<Difference>,
    pub(super) verdict: Verdict,
}

/// What the streams' rows say about the partition's checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    /// The lowest offset of an event that a row lacks.
    pub(super) missing_from: Option<i64>,
    /// The offset behind the highest that a row has in spite of the checkpoint.
    pub(super) ahead_to: Option<i64>,
    /// The highest offset of an event that these streams' rows have.
    pub(super) applied: Option<i64>,
}

type Of = (Option<u64>, Option<i64>);

fn of(fact: &Fact) -> Of {
    (Some(fact.sequence), Some(fact.offset))
}

impl<'a> Detail<'a> {
    pub(super) fn new(part: &'a Part) -> Self {
        Self {
            part,
            recent_from: part.recent_from,
            stream_rows: Rows::new(),
            event_rows: Rows::new(),
            clickhouse_rows: Rows::new(),
            keys_at: HashMap::new(),
            facts: HashMap::new(),
            wrong: Vec::new(),
            verdict: Verdict::default(),
        }
    }

    /// Reads all that the log has of these streams.
    pub(super) fn read(
        &mut self,
        reader: &mut PartitionReader,
        writers: &Writers,
        ids: &HashSet<String>,
    ) -> Result<(), Error> {
        let decoders = writers.decoders();
        let (topic, partition) = (self.part.topic.clone(), self.part.partition);
        let mut contents: HashMap<(String, u64), (i64, u128)> = HashMap::new();
        let named: HashSet<i64> = self.offsets_named();
        reader.go_to(&topic, partition, Start::Beginning)?;
        reader.to_end(|record| {
            // What a snapshot tells of may lie behind the end that was taken down.
            let key = record.key.as_deref().unwrap_or_default();
            if named.contains(&record.offset) {
                self.keys_at.insert(record.offset, key.to_vec());
            }
            let Some((id, sequence)) = stream_and_sequence(key) else { return Visit::Continue };
            if !ids.contains(id) || record.value.is_none() {
                return Visit::Continue;
            }
            let own = (record.offset, content(&record));
            let first = *contents.entry((id.to_owned(), sequence)).or_insert(own);
            if first.0 == record.offset {
                let fact = decoders.read(&record).and_then(|mut fact| {
                    if self.part.aggregate.events().contains(&fact.name.as_str()) {
                        decoders.fill(&mut fact, &record)?;
                    }
                    Ok(fact)
                });
                self.keep(id, sequence, &record, fact);
            } else if first.1 != own.1 {
                let text = |offset| Some(format!("the event at offset {offset}"));
                let place = self.place("log", "events", id);
                let event = (Some(sequence), Some(record.offset));
                let found = Some(format!("another one at offset {}", record.offset));
                self.wrong.push(place.say(event, "sequence", text(first.0), found));
            }
            Visit::Continue
        })?;
        for facts in self.facts.values_mut() {
            facts.sort_by_key(|fact| fact.sequence);
        }
        Ok(())
    }

    fn offsets_named(&self) -> HashSet<i64> {
        let rows = self.clickhouse_rows.values().flatten();
        rows.filter_map(|(_, row)| row[OFFSET_COLUMN].whole()).collect()
    }

    fn keep(&mut self, id: &str, sequence: u64, record: &Record, fact: Result<Fact, String>) {
        let place = self.place("log", "events", id);
        let event = (Some(sequence), Some(record.offset));
        let due = partition_of(id, self.part.count);
        if due != self.part.partition {
            let (due, found) = (due.to_string(), self.part.partition.to_string());
            self.wrong.push(place.say(event, "partition", Some(due), Some(found)));
        }
        match fact {
            Ok(fact) => self.facts.entry(id.to_owned()).or_default().push(fact),
            Err(reason) => {
                let expected = Some("an event that can be read".to_owned());
                self.wrong.push(place.say(event, "value", expected, Some(reason)));
            }
        }
    }

    fn place<'p>(&self, store: &'static str, table: &'p str, id: &str) -> Place<'p> {
        let stream = format!("{DOMAIN}.{}/{id}", self.part.aggregate.name());
        Place { store, stream, table, partition: self.part.partition }
    }

    /// Names everything in which a stream differs.
    pub(super) fn judge(&mut self, id: &str, snapshot: Option<&Found>) -> Vec<Difference> {
        let facts = self.facts.remove(id).unwrap_or_default();
        let own = self.place("log", "events", id).stream;
        let (mut all, others) =
            std::mem::take(&mut self.wrong).into_iter().partition(|one| one.stream == own);
        self.wrong = others;
        self.log(id, &facts, &mut all);
        if let Some(found) = snapshot {
            all.extend(self.snapshot(id, &facts, found));
        }
        if self.part.postgres.is_some()
            && let Some(tables) = self.part.aggregate.tables()
        {
            all.extend(self.postgres(id, &facts, tables));
        }
        if self.part.clickhouse.is_some() {
            all.extend(self.clickhouse(id, &facts));
        }
        all
    }

    /// What is wrong with the facts themselves.
    fn log(&self, id: &str, facts: &[Fact], all: &mut Vec<Difference>) {
        let place = self.place("log", "events", id);
        let unreadable: HashSet<u64> = all.iter().filter_map(|one| one.sequence).collect();
        let mut next = 1;
        let mut fold = Fold::new(self.part.aggregate, self.recent_from);
        for fact in facts {
            for missing in (next..fact.sequence).filter(|missing| !unreadable.contains(missing)) {
                let found = Some(format!("{} at offset {}", fact.sequence, fact.offset));
                let event = (Some(missing), Some(fact.offset));
                all.push(place.say(event, "sequence", Some(missing.to_string()), found));
            }
            next = fact.sequence + 1;
            if let Some(Fold::Account(account)) = &fold {
                for (column, expected, found) in account.check(fact) {
                    all.push(place.say(of(fact), column, Some(expected), Some(found)));
                }
            }
            if let Some(fold) = &mut fold {
                fold.take(fact);
            }
        }
    }

    fn snapshot(&self, id: &str, facts: &[Fact], found: &Found) -> Vec<Difference> {
        let place = self.place("snapshots", "snapshots", id);
        let snapshot = match &found.snapshot {
            Ok(snapshot) => snapshot,
            Err(reason) => {
                let expected = Some("a snapshot that can be read".to_owned());
                let at = (None, Some(found.offset));
                return vec![place.say(at, "value", expected, Some(reason.clone()))];
            }
        };
        let event = (Some(snapshot.version), Some(found.offset));
        let version = Some(snapshot.version.to_string());
        if snapshot.version < found.highest {
            let expected = Some(format!("{} or more, as before it", found.highest));
            return vec![place.say(event, "version", expected, version)];
        }
        let mut own = Snapshot::new(self.part.aggregate);
        facts.iter().filter(|fact| fact.sequence <= snapshot.version).for_each(|f| own.take(f));
        if own.version < snapshot.version {
            let expected = Some(format!("{} at most", own.version));
            return vec![place.say(event, "version", expected, version)];
        }
        let differing = own.compare(snapshot).into_iter();
        differing
            .map(|(column, expected, found)| {
                place.say(event, column, expected.shown(), found.shown())
            })
            .collect()
    }

    /// A stream's rows in Postgres: its own, and those of its events.
    fn postgres(&mut self, id: &str, facts: &[Fact], tables: Tables) -> Vec<Difference> {
        let cut = facts.iter().filter(|fact| self.part.in_postgres(fact)).count();
        let (mut all, version) = self.own_row(id, facts, cut, &tables.stream);
        if let Some(table) = tables.events {
            let rows = self.event_rows.remove(id).unwrap_or_default();
            let at_cut = self.transactions(id, &facts[..cut], &table, &rows);
            // Of a row that is elsewhere, the rows of its events may be there too.
            let elsewhere = (version != cut && !at_cut.is_empty())
                .then(|| self.transactions(id, &facts[..version], &table, &rows));
            all.extend(match elsewhere {
                Some(elsewhere) if elsewhere.len() < at_cut.len() => elsewhere,
                Some(_) | None => at_cut,
            });
        }
        all
    }

    /// The stream's own row, and how many facts it contains.
    fn own_row(
        &mut self,
        id: &str,
        facts: &[Fact],
        cut: usize,
        table: &Table,
    ) -> (Vec<Difference>, usize) {
        let place = self.place("postgres", table.name, id);
        let at = |count: usize| facts[..count].last();
        let mut rows = self.stream_rows.remove(id).unwrap_or_default();
        let Some((partition, row)) = rows.pop() else {
            let event = at(cut).map_or((None, None), of);
            let all = if cut > 0 { vec![place.missing(event)] } else { Vec::new() };
            if cut > 0 {
                self.lacks(&facts[0]);
            }
            return (all, if cut > 0 { 0 } else { cut });
        };
        if facts.is_empty() {
            return (vec![place.orphan((None, None), &row)], 0);
        }
        let mut all = Vec::new();
        if partition != self.part.partition {
            let (due, found) = (self.part.partition.to_string(), partition.to_string());
            let event = at(cut).map_or((None, None), of);
            all.push(place.say(event, "kafka_partition", Some(due), Some(found)));
        }
        let found =
            facts.iter().take_while(|fact| row[0] != Cell::count(fact.sequence)).count() + 1;
        if found <= facts.len() && found != cut {
            let there = self.folded(&facts[..found]);
            if there[..table.own] == row[..table.own] {
                let version = |count: usize| Some(count.to_string());
                if found > cut {
                    let end = at(found).map(|fact| fact.offset + 1);
                    self.verdict.ahead_to = self.verdict.ahead_to.max(end);
                } else {
                    self.lacks(&facts[found]);
                    self.has(at(found));
                    let event = of(&facts[found]);
                    all.push(place.say(event, "version", version(cut), version(found)));
                }
                return (all, found);
            }
        }
        if cut == 0 {
            all.push(place.orphan((None, None), &row));
            return (all, 0);
        }
        self.has(at(cut));
        let expected = self.folded(&facts[..cut]);
        let event = at(cut).map_or((None, None), of);
        all.extend(place.rows(event, table.columns, &expected, &row));
        (all, cut)
    }

    fn folded(&self, facts: &[Fact]) -> Row {
        let mut fold = Fold::new(self.part.aggregate, self.recent_from);
        for fact in facts {
            if let Some(fold) = &mut fold {
                fold.take(fact);
            }
        }
        fold.map_or_else(Row::new, |fold| fold.row())
    }

    fn lacks(&mut self, fact: &Fact) {
        let lowest = self.verdict.missing_from.map_or(fact.offset, |known| known.min(fact.offset));
        self.verdict.missing_from = Some(lowest);
    }

    fn has(&mut self, fact: Option<&Fact>) {
        self.verdict.applied = self.verdict.applied.max(fact.map(|fact| fact.offset));
    }

    fn transactions(
        &self,
        id: &str,
        facts: &[Fact],
        table: &Table,
        rows: &[(i32, Row)],
    ) -> Vec<Difference> {
        let place = self.place("postgres", table.name, id);
        let expected = facts.iter().filter_map(|fact| Some((fact, account::transaction(fact)?)));
        let (mut all, _) = by_sequence(&place, table.columns, expected, rows);
        let own = self.part.partition;
        for (partition, row) in rows.iter().filter(|(partition, _)| *partition != own) {
            let sequence = row[0].whole().and_then(|number| u64::try_from(number).ok());
            let (due, found) = (Some(own.to_string()), Some(partition.to_string()));
            all.push(place.say((sequence, None), "kafka_partition", due, found));
        }
        all
    }

    fn clickhouse(&mut self, id: &str, facts: &[Fact]) -> Vec<Difference> {
        let place = self.place("clickhouse", "event", id);
        let part = self.part;
        let mut rows = self.clickhouse_rows.remove(id).unwrap_or_default();
        // What is parked may have become a row since.
        if let Some(first) = part.parked[1].get(id) {
            rows.retain(|(_, row)| row[0].whole().is_none_or(|at| at.unsigned_abs() < *first));
        }
        let there = facts.iter().filter(|fact| part.in_clickhouse(fact));
        let expected = there.filter_map(|fact| {
            let row = event::row(part.aggregate, fact, part.topic_id, part.partition)?;
            Some((fact, row))
        });
        let (mut all, offsets) = by_sequence(&place, &event::COLUMNS, expected, &rows);
        // A repeat may have been written in the first one's place, and compaction may have removed
        // one of them: any place that holds that key, or held it before, will do.
        all.retain(|one| {
            let found = one.found.as_deref().and_then(|found| found.parse::<i64>().ok());
            let (true, Some(found), Some(sequence)) =
                (one.column == "kafka_offset", found, one.sequence)
            else {
                return true;
            };
            let expected = offsets.get(&sequence).copied().unwrap_or_default();
            match self.keys_at.get(&found) {
                Some(key) => stream_and_sequence(key) != Some((id, sequence)),
                None => found > expected,
            }
        });
        all
    }
}

/// Compares rows that have a sequence each. Returns the offsets of the events, too.
fn by_sequence<'f>(
    place: &Place<'_>,
    columns: &[&str],
    expected: impl Iterator<Item = (&'f Fact, Row)>,
    rows: &[(i32, Row)],
) -> (Vec<Difference>, HashMap<u64, i64>) {
    let mut offsets = HashMap::new();
    let mut missing: BTreeMap<u64, (&Fact, Row)> = BTreeMap::new();
    for (fact, row) in expected {
        offsets.insert(fact.sequence, fact.offset);
        missing.insert(fact.sequence, (fact, row));
    }
    let mut all = Vec::new();
    for (_, row) in rows {
        let sequence = row[0].whole().and_then(|number| u64::try_from(number).ok());
        match sequence.and_then(|sequence| missing.remove(&sequence)) {
            Some((fact, due)) => all.extend(place.rows(of(fact), columns, &due, row)),
            None => all.push(place.orphan((sequence, None), row)),
        }
    }
    all.extend(missing.values().map(|(fact, _)| place.missing(of(fact))));
    (all, offsets)
}
