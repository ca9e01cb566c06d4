use std::time::{Duration, Instant};

use faultproxy::{Law, bench::RawClient};
use futures::TryStreamExt;
use sqlx::{Connection, Executor, Row};
use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::support::{Bed, CLASSIC, DEPRECATE_EOF, packet, rest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_sees_a_plain_server() {
    let Some(bed) = Bed::start("sqlx").await else { return };
    let mut sql = bed.proxy.sqlx().await;
    sql.execute("CREATE DATABASE d; USE d; CREATE TABLE t (a BIGINT PRIMARY KEY, b LONGBLOB)").await.unwrap();
    for a in 0..100_i64 {
        sqlx::query("INSERT INTO t VALUES (?, ?)")
            .bind(a)
            .bind(vec![a as u8; a as usize])
            .execute(&mut sql)
            .await
            .unwrap();
    }
    let rows =
        sqlx::query("SELECT a, b FROM t WHERE a >= ? ORDER BY a").bind(90_i64).fetch_all(&mut sql).await.unwrap();
    let found: Vec<(i64, usize)> = rows.iter().map(|row| (row.get(0), row.get::<Vec<u8>, _>(1).len())).collect();
    assert_eq!(found, (90..100).map(|n| (n, n as usize)).collect::<Vec<_>>());

    let mut transaction = sql.begin().await.unwrap();
    transaction.execute("DELETE FROM d.t").await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = sql.begin().await.unwrap();
    transaction.execute("DELETE FROM d.t WHERE a < 50").await.unwrap();
    transaction.commit().await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM d.t").fetch_one(&mut sql).await.unwrap();
    assert_eq!(count, 50);

    let error = sql.execute("SELECT * FROM nowhere").await.unwrap_err();
    assert!(error.as_database_error().is_some(), "{error}");
    let error = sqlx::query("INSERT INTO t VALUES (60, '')").execute(&mut sql).await.unwrap_err();
    assert!(error.as_database_error().unwrap().is_unique_violation(), "{error}");

    let several = sqlx::raw_sql("SELECT 1 AS n; SELECT 2 UNION SELECT 3; DO 1; SELECT 4").fetch_many(&mut sql);
    let numbers: Vec<i64> = several
        .try_filter_map(async |step| Ok(step.right().map(|row| row.get::<i64, _>(0))))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(numbers, [1, 2, 3, 4]);

    sql.execute("CREATE PROCEDURE p() BEGIN SELECT 7; SELECT a FROM d.t; END").await.unwrap();
    let rows = sqlx::raw_sql("CALL p()").fetch_all(&mut sql).await.unwrap();
    assert_eq!(rows.len(), 1 + 50);

    sql.ping().await.unwrap();
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert!(state.commands_total > 100 && state.malformed_total == 0, "{state:?}");
    assert_eq!(state.connections, 1);
    let upstream = bed.proxy.metric("faultproxy_upstream_seconds_count").await;
    assert_eq!(upstream as u64, bed.proxy.state().await.commands_total);
    sql.close().await.unwrap();
    bed.proxy.until("without connections", |state| state.connections == 0).await;
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_16_mb_either_way() {
    let Some(bed) = Bed::start("big").await else { return };
    let mut sql = bed.proxy.sqlx().await;
    sql.execute("SET GLOBAL max_allowed_packet = 64 * 1024 * 1024").await.unwrap();
    sql.close().await.unwrap();
    let mut sql = bed.proxy.sqlx().await;
    sql.execute("CREATE DATABASE d; CREATE TABLE d.t (b LONGBLOB)").await.unwrap();
    for length in [0xff_ffff - 40, 0xff_ffff, 20_000_000] {
        let sent: Vec<u8> = (0..length as u32).map(|n| (n * 7 % 251) as u8).collect();
        let row = sqlx::query("SELECT ?, 1").bind(&sent).fetch_one(&mut sql).await.unwrap();
        assert!(row.get::<Vec<u8>, _>(0) == sent, "{length} bytes came back differently");
    }
    // Lengths around the limit of a packet: the row is 8 or 9 bytes longer than its value.
    for length in (0xff_ffff - 10)..=(0xff_ffff + 2) {
        let query = sqlx::AssertSqlSafe(format!("SELECT REPEAT('x', {length})"));
        let text: String = sqlx::raw_sql(query).fetch_one(&mut sql).await.unwrap().get(0);
        assert_eq!(text.len(), length);
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert_eq!(state.malformed_total, 0);
    bed.stack.stop().await.unwrap();
}

/// Every kind of command, pipelined: the proxy must know where each response ends to pass on the next command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_commands_answered_byte_for_byte() {
    let Some(bed) = Bed::start("bytes").await else { return };
    let cursor = |id: u8| [&[0x17, id, 0, 0, 0, 1, 1, 0, 0, 0][..]].concat();
    let script: Vec<Vec<u8>> = vec![
        b"\x03SELECT 1, NULL, 'x'".to_vec(),
        b"\x03SELECT 1; DO 1; SELECT nothing FROM nowhere".to_vec(),
        b"\x03SELECT 5 WHERE 1 = 0".to_vec(),
        b"\x02mysql".to_vec(),
        b"\x02no_such_schema".to_vec(),
        b"\x0e".to_vec(),
        // Prepare with parameters and columns, columns only, neither, and with an error.
        b"\x16SELECT ?, ?".to_vec(),
        b"\x16SELECT seq FROM seq_1_to_10".to_vec(),
        b"\x16DO 1".to_vec(),
        b"\x16SELEC".to_vec(),
        // Execute without and with a cursor, fetch 4 rows and the rest, reset, close, fetch of the closed one.
        b"\x17\x02\0\0\0\0\x01\0\0\0".to_vec(),
        cursor(2),
        b"\x1c\x02\0\0\0\x04\0\0\0".to_vec(),
        b"\x1c\x02\0\0\0\x64\0\0\0".to_vec(),
        b"\x1a\x02\0\0\0".to_vec(),
        b"\x19\x02\0\0\0".to_vec(),
        b"\x1c\x02\0\0\0\x01\0\0\0".to_vec(),
        // Long data for a parameter has no response.
        b"\x18\x01\0\0\0\0\0abc".to_vec(),
        b"\x17\x01\0\0\0\0\x01\0\0\0\x02\x01\xfc\0\x06\0".to_vec(),
        b"\x17\x63\0\0\0\0\x01\0\0\0".to_vec(),
        // Field list, multi statements off and on, an unknown command, reset connection.
        b"\x04user\0".to_vec(),
        b"\x1b\x01\0".to_vec(),
        b"\x1b\0\0".to_vec(),
        b"\x0d".to_vec(),
        b"\x60".to_vec(),
        b"\x1f".to_vec(),
        b"\x03CREATE PROCEDURE test_p() BEGIN SELECT 1; SELECT 2; END".to_vec(),
        b"\x03DROP PROCEDURE test_p".to_vec(),
        b"\x0e".to_vec(),
        b"\x01".to_vec(),
    ];
    let bytes: Vec<u8> = script.iter().flat_map(|command| packet(0, command)).collect();
    for capabilities in [CLASSIC, CLASSIC | DEPRECATE_EOF] {
        let mut direct = RawClient::login(bed.direct(), "root", capabilities).await.unwrap();
        direct.stream.write_all(&bytes).await.unwrap();
        let expected = rest(&mut direct.stream).await;
        assert!(expected.len() > 1_000);
        // In one piece, and byte by byte.
        for piece in [bytes.len(), 1] {
            let mut proxied = bed.proxy.raw(capabilities).await;
            for piece in bytes.chunks(piece) {
                proxied.stream.write_all(piece).await.unwrap();
            }
            let answered = rest(&mut proxied.stream).await;
            assert!(answered == expected, "{} of {} bytes with {capabilities:#x}", answered.len(), expected.len());
        }
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    // All but two without a response and the quit, four times.
    assert_eq!((state.commands_total, state.malformed_total), (4 * (script.len() as u64 - 3), 0));
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_user_statistics_and_greeting() {
    let Some(bed) = Bed::start("users").await else { return };
    let mut sql = bed.proxy.sqlx().await;
    sql.execute("CREATE USER other@'%'; CREATE USER other@'127.0.0.1'").await.unwrap();
    let direct = RawClient::login(bed.direct(), "root", CLASSIC).await.unwrap();
    for capabilities in [CLASSIC, CLASSIC | DEPRECATE_EOF] {
        let mut raw = bed.proxy.raw(capabilities).await;
        assert_eq!(raw.greeting.len(), direct.greeting.len());
        let at = raw.greeting.iter().position(|&byte| byte == 0).unwrap() + 14;
        assert_eq!(raw.greeting[at] & 0xa0, 0, "COMPRESS and LOCAL_FILES are hidden");
        assert_eq!(raw.greeting[at + 1] & 8, 0, "SSL is hidden");

        raw.send(0, b"\x09").await.unwrap();
        let (seq, statistics) = raw.packet().await.unwrap();
        assert!(seq == 1 && statistics.starts_with(b"Uptime"));
        for (user, succeeds) in [("other", true), ("nobody", false)] {
            // An old plugin name makes the server ask for a switch.
            let command = [b"\x11", user.as_bytes(), b"\0\0\0\x2d\0mysql_clear_password\0"].concat();
            raw.send(0, &command).await.unwrap();
            let (mut seq, mut payload) = raw.packet().await.unwrap();
            while payload[0] == 0xfe {
                raw.send(seq + 1, &[]).await.unwrap();
                (seq, payload) = raw.packet().await.unwrap();
            }
            assert_eq!(payload[0] == 0, succeeds, "{user}: {}", String::from_utf8_lossy(&payload));
            if succeeds {
                raw.ping().await.unwrap();
            }
        }
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert_eq!(state.malformed_total, 0);
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_law_counts_the_whole_store() {
    let Some(bed) = Bed::start("law").await else { return };
    let mut raws = Vec::new();
    for _ in 0..5 {
        raws.push(bed.proxy.raw(CLASSIC).await);
    }
    bed.proxy.client.set_law(Law::Linear { base_ms: 700.0, slope_ms: 40.0, spread: 0.0 }).await.unwrap();
    let mut pings = JoinSet::new();
    for mut raw in raws {
        pings.spawn(async move {
            let start = Instant::now();
            raw.ping().await.unwrap();
            start.elapsed()
        });
    }
    bed.proxy.until("five in flight", |state| state.in_flight == 5).await;
    let mut took = pings.join_all().await;
    took.sort();
    // They arrived as first to fifth.
    for (n, took) in took.iter().enumerate() {
        assert!(*took >= Duration::from_millis(700 + 40 * (n as u64 + 1)), "{n}: {took:?}");
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert_eq!(state.commands_total, 5);
    let added = bed.proxy.metric("faultproxy_added_delay_seconds_sum").await;
    assert!(added >= 5.0 * 0.7 + 0.04 * 15.0, "{added}");
    // Without a law the next one adds nothing.
    bed.proxy.client.set_law(Law::None).await.unwrap();
    bed.proxy.raw(CLASSIC).await.ping().await.unwrap();
    assert_eq!(bed.proxy.metric("faultproxy_added_delay_seconds_sum").await, added);
    bed.stack.stop().await.unwrap();
}
