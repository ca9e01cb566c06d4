use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

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
    // Rows that just fit into a packet, fill it, or need a second one; their values take 4 bytes more, or 9.
    let full = 0xff_ffff;
    for length in [full - 5, full - 4, full - 3, full, full + 1, full + 20_000] {
        let script = script(&[format!("\x03SELECT REPEAT('x', {length})").as_bytes(), b"\x01"]);
        let answers = [bed.direct(), bed.proxy.address].map(|address| answer(address, CLASSIC, &script, usize::MAX));
        let [direct, proxied] = answers;
        let (direct, proxied) = (direct.await, proxied.await);
        assert!(direct == proxied && direct.len() > length, "{length}: {} and {}", direct.len(), proxied.len());
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert_eq!(state.malformed_total, 0);
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_too_big_for_the_server() {
    let Some(bed) = Bed::start("toobig").await else { return };
    bed.proxy.sqlx().await.execute("SET GLOBAL max_allowed_packet = 1024 * 1024").await.unwrap();
    // In one packet, and in two: the server answers before it has read all, or closes.
    for length in [2_000_000, 20_000_000] {
        let mut sql = bed.proxy.sqlx().await;
        let error = sqlx::query("SELECT ?").bind(vec![1_u8; length]).execute(&mut sql).await.unwrap_err();
        drop(sql);
        let state = bed.proxy.until("closed", |state| state.in_flight == 0 && state.connections == 0).await;
        assert_eq!(state.malformed_total, 0, "{length}: {error}");
    }
    bed.stack.stop().await.unwrap();
}

fn script(commands: &[&[u8]]) -> Vec<u8> {
    commands.iter().flat_map(|command| packet(0, command)).collect()
}

/// All responses to a script that ends with COM_QUIT and is sent in pieces.
async fn answer(address: SocketAddr, capabilities: u32, script: &[u8], piece: usize) -> Vec<u8> {
    let mut raw = RawClient::login(&address.into(), "root", capabilities).await.unwrap();
    for piece in script.chunks(piece) {
        raw.stream.write_all(piece).await.unwrap();
    }
    rest(&mut raw.stream).await
}

/// Every kind of command, pipelined: the proxy must know where each response ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_commands_answered_byte_for_byte() {
    let Some(bed) = Bed::start("bytes").await else { return };
    // Statement numbers continue over all connections of a server thread; 0xffffffff is the last one made.
    let last = |code: u8, rest: &[u8]| [&[code, 0xff, 0xff, 0xff, 0xff], rest].concat();
    let commands: [&[u8]; 33] = [
        b"\x03SELECT 1, NULL, 'x'",
        b"\x03SELECT 1; DO 1; SELECT nothing FROM nowhere",
        b"\x03SELECT 5 WHERE 1 = 0",
        b"\x02mysql",
        b"\x02no_such_schema",
        b"\x0e",
        b"\x16SELECT ?, ?",
        // Long data for a parameter has no response; both parameters are text.
        &last(0x18, b"\0\0abc"),
        &last(0x17, b"\0\x01\0\0\0\0\x01\xfc\0\xfc\0\x03xyz"),
        b"\x16SELECT seq FROM seq_1_to_10",
        // Execute without and with a cursor, fetch 4 rows and the rest, reset, close.
        &last(0x17, b"\0\x01\0\0\0"),
        &last(0x17, b"\x01\x01\0\0\0"),
        &last(0x1c, b"\x04\0\0\0"),
        &last(0x1c, b"\x64\0\0\0"),
        &last(0x1a, b""),
        &last(0x19, b""),
        &last(0x1c, b"\x01\0\0\0"),
        b"\x16DO 1",
        &last(0x17, b"\0\x01\0\0\0"),
        b"\x16SELEC",
        // Field list, multi statements off and on, debug, an unknown command, reset connection.
        b"\x04user\0",
        b"\x1b\x01\0",
        b"\x1b\0\0",
        b"\x0d",
        b"\x60",
        b"\x1f",
        b"\x03CREATE PROCEDURE test_p() BEGIN SELECT 1; SELECT 2; END",
        b"\x03CALL test_p()",
        b"\x16CALL test_p()",
        &last(0x17, b"\0\x01\0\0\0"),
        b"\x03DROP PROCEDURE test_p",
        b"\x0e",
        b"\x01",
    ];
    let script = script(&commands);
    // Responses with every statement number set to 0.
    let run = async |address: SocketAddr, capabilities: u32, piece: usize| {
        let mut bytes = answer(address, capabilities, &script, piece).await;
        let prepared: Vec<usize> =
            (0..bytes.len() - 9).filter(|&at| bytes[at..].starts_with(b"\x0c\0\0\x01\0")).map(|at| at + 5).collect();
        prepared.iter().for_each(|&at| bytes[at..at + 4].fill(0));
        assert_eq!(prepared.len(), 4, "{}", String::from_utf8_lossy(&bytes));
        bytes
    };
    let mut expected_commands = 0;
    for capabilities in [CLASSIC, CLASSIC | DEPRECATE_EOF] {
        let expected = run(bed.direct(), capabilities, 10_000).await;
        // In one piece, and byte by byte.
        for piece in [10_000, 1] {
            let answered = run(bed.proxy.address, capabilities, piece).await;
            let same = std::iter::zip(&answered, &expected).take_while(|(a, b)| a == b).count();
            let differ = [&answered, &expected].map(|all| String::from_utf8_lossy(&all[same..]).into_owned());
            assert!(answered == expected, "differ from byte {same} on with {capabilities:#x}: {differ:?}");
            // Close, long data and quit have no response.
            expected_commands += commands.len() as u64 - 3;
        }
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert_eq!((state.commands_total, state.malformed_total), (expected_commands, 0));
    bed.stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_user_statistics_and_greeting() {
    let Some(bed) = Bed::start("users").await else { return };
    let mut sql = bed.proxy.sqlx().await;
    sql.execute("CREATE USER other@'%'; CREATE USER other@'127.0.0.1'").await.unwrap();
    let direct = RawClient::login(&bed.direct().into(), "root", CLASSIC).await.unwrap();
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
    bed.proxy
        .client
        .set_law(Law::Linear { base_ms: 700.0, slope_ms: 40.0, crosstalk_ms: 0.0, spread: 0.0 })
        .await
        .unwrap();
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
        // Long delays end on a grid of 8 ms, and the proxy wakes up early by what waking up takes on average.
        assert!(*took >= Duration::from_millis(695 + 40 * (n as u64 + 1)), "{n}: {took:?}");
    }
    let state = bed.proxy.until("idle", |state| state.in_flight == 0).await;
    assert_eq!(state.commands_total, 5);
    let added = bed.proxy.metric("faultproxy_added_delay_seconds_sum").await;
    // The law includes the store's own time.
    let upstream = bed.proxy.metric("faultproxy_upstream_seconds_sum").await;
    assert!(added + upstream >= 5.0 * 0.695 + 0.04 * 15.0, "{added} {upstream}");
    // Without a law nothing is added.
    bed.proxy.client.set_law(Law::None).await.unwrap();
    bed.proxy.raw(CLASSIC).await.ping().await.unwrap();
    assert_eq!(bed.proxy.metric("faultproxy_added_delay_seconds_sum").await, added);
    bed.stack.stop().await.unwrap();
}
