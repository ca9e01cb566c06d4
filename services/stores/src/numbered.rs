//! Rows of the log, and the arrival numbers that they get.
//!
//! A transaction takes its numbers before it writes a row, and the lock on the shard's row in `ownership` is held until it ends. So
//! transactions of one shard end in the order of their numbers: a reader that sees a number sees every lower one that will ever exist. Events
//! that the log has keep their number, and leave gaps.

use std::fmt::Write;

use contract::{Event, EventKind, ItemId, UserId};

use crate::sql::{push_double, push_hex, push_integer};

/// An event to be imported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportEvent<'a> {
    pub user_id: &'a UserId,
    pub item_id: &'a ItemId,
    pub kind: EventKind,
    /// Unix milliseconds.
    pub at_ms: i64,
    pub weight: f32,
}

impl<'a> ImportEvent<'a> {
    pub fn of(event: &'a Event) -> Self {
        let Event { user_id, item_id, kind, at_ms, weight } = event;
        Self { user_id, item_id, kind: *kind, at_ms: *at_ms, weight: *weight }
    }

    /// The primary key of the row. All writers insert in this order: two batches with the same events cannot deadlock, and neighbours are in
    /// the same pages.
    pub(crate) fn row_key(&self) -> (&'a UserId, i64, &'a ItemId, u8) {
        (self.user_id, self.at_ms, self.item_id, self.kind.code())
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrival {
    Number(u64),
    /// Of the numbers that the transaction took with `take_numbers`, from 0.
    Taken(usize),
}

/// Takes `count` numbers for a transaction that is not a worker's batch. Workers expect the old base, and read their position again.
pub(crate) fn take_numbers(sql: &mut String, schema: &str, count: usize) {
    let _ = write!(
        sql,
        "UPDATE {schema}.ownership SET arrival_base = LAST_INSERT_ID(arrival_base + next_offset) - next_offset + {count}; \
         SET @first_arrival = LAST_INSERT_ID(); "
    );
}

/// Writes those rows that the log does not have. `rows`: not empty, in the order of their keys. Ids are hexadecimal: such a literal needs no
/// escaping.
pub(crate) fn insert_rows<'a>(
    sql: &mut String,
    schema: &str,
    rows: impl IntoIterator<Item = (ImportEvent<'a>, Arrival)>,
) {
    let _ =
        write!(sql, "INSERT IGNORE INTO {schema}.behaviour (user_id, at_ms, item_id, kind, weight, arrival) VALUES ");
    for (n, (row, arrival)) in rows.into_iter().enumerate() {
        sql.push_str(if n == 0 { "(x'" } else { ",(x'" });
        push_hex(sql, row.user_id.as_str());
        sql.push_str("',");
        push_integer(sql, row.at_ms);
        sql.push_str(",x'");
        push_hex(sql, row.item_id.as_str());
        sql.push_str("',");
        push_integer(sql, row.kind.code());
        sql.push(',');
        push_double(sql, row.weight);
        sql.push(',');
        match arrival {
            Arrival::Number(number) => push_integer(sql, number),
            Arrival::Taken(n) => {
                sql.push_str("@first_arrival+");
                push_integer(sql, n);
            }
        }
        sql.push(')');
    }
    sql.push_str("; ");
}
