use proptest::prelude::*;

use super::*;

const CSV: &str = "user_id,item_id,event,timestamp,weight\n";

fn events(data: &Dataset) -> Vec<(&str, &str, EventKind, i64, f32)> {
    data.events
        .iter()
        .map(|e| {
            (data.users[e.user as usize].as_str(), data.items[e.item as usize].as_str(), e.kind, e.at_ms, e.weight)
        })
        .collect()
}

fn reasons(text: &str) -> Vec<(u64, String)> {
    let report = match parse(text.as_bytes(), BadRows::Skip) {
        Ok((_, report)) | Err(ParseError::NoRows(report)) => report,
        Err(other) => panic!("{other}"),
    };
    report.first_bad_rows.into_iter().map(|bad| (bad.line, bad.reason)).collect()
}

#[test]
fn recbole_columns_go_by_the_header() {
    let text = "\u{feff}timestamp:float\textra:token\titem_id:token\trating:float\tuser_id:token\r\n\
                881250949\tx\t242\t3\t196\r\n881250949.5\t\"\t1,2\t0.5\t196\r\n";
    let (data, report) = parse(text.as_bytes(), BadRows::Refuse).unwrap();
    assert_eq!(
        events(&data),
        [
            ("196", "242", EventKind::Rating, 881_250_949_000, 3.0),
            ("196", "1,2", EventKind::Rating, 881_250_949_500, 0.5)
        ]
    );
    assert_eq!((report.format, report.rows, report.bad_rows), (Format::RecBole, 2, 0));
}

#[test]
fn csv_with_quotes_defaults_and_dates() {
    let text = "\u{feff}\"item_id\",event,user_id,more,timestamp,weight\r\n\
                \"a, \"\"b\"\"\",view,u 1,\"x\r\ny\",10,\r\n\
                b,cart,u 1,,1970-01-01T00:00:11Z,2.5\r\n\
                b,purchase,v,,12.25,\r\n\
                c,rating,v,,13,";
    let (data, report) = parse(text.as_bytes(), BadRows::Refuse).unwrap();
    assert_eq!(
        events(&data),
        [
            ("u 1", "a, \"b\"", EventKind::View, 10_000, 1.0),
            ("u 1", "b", EventKind::Cart, 11_000, 2.5),
            ("v", "b", EventKind::Purchase, 12_250, 4.0),
            ("v", "c", EventKind::Rating, 13_000, 3.0)
        ]
    );
    assert_eq!((report.format, report.rows), (Format::Csv, 4));
}

#[test]
fn csv_needs_no_weight_column() {
    let (data, _) = parse("user_id,item_id,event,timestamp\nu,i,view,1\n".as_bytes(), BadRows::Refuse).unwrap();
    assert_eq!(events(&data), [("u", "i", EventKind::View, 1000, 1.0)]);
}

#[test]
fn headers_that_cannot_be_used_are_explained() {
    let error = |text: &str| parse(text.as_bytes(), BadRows::Skip).unwrap_err();
    assert!(matches!(error(""), ParseError::UnknownFormat { .. }));
    let unknown = error("userId,movieId,rating,timestamp\n1,2,3,4\n").to_string();
    assert!(
        unknown.contains("neither RecBole's") && unknown.contains("\"userId,movieId,rating,timestamp\""),
        "{unknown}"
    );
    let missing = error("user_id,item_id,weight\n").to_string();
    assert_eq!(missing, "the header has no column event, timestamp");
    let missing = error("user_id:token\titem_id:token\ttimestamp:float\n").to_string();
    assert_eq!(missing, "the header has no column rating:float");
    let twice = error("user_id,item_id,event,timestamp,user_id\n").to_string();
    assert_eq!(twice, "the header has the column user_id twice");
}

#[test]
fn each_bad_row_has_its_line_and_reason() {
    let text = format!(
        "{CSV}u,i,view,1,\n,i,view,1,\n\nu,i,look,1,\nu,i,view,soon,\nu,i,view,1700000000000,\nu,i,view,-1,\n\
         u,i,view,NaN,\nu,i,view,1,0\nu,i,view,1,nan\nu,i,view\n\"u\nv\",i,view,1,\nu,{},view,1,\n",
        "x".repeat(65)
    );
    let got = reasons(&text);
    let want = [
        (3, "the user id must not be empty"),
        (5, "the event \"look\" is not one of view, cart, purchase, rating"),
        (6, "the timestamp \"soon\" is not a time in Unix seconds or RFC 3339"),
        (7, "the timestamp \"1700000000000\" is not in the years 1970 to 9999; it must be in seconds"),
        (8, "the timestamp \"-1\" is not in the years 1970 to 9999; it must be in seconds"),
        (9, "the timestamp \"NaN\" is not in the years 1970 to 9999; it must be in seconds"),
        (10, "the weight \"0\" is not a finite number above 0"),
        (11, "the weight \"nan\" is not a finite number above 0"),
        (12, "has 3 columns, the header has 5"),
        (13, "the user id must not contain control characters"),
    ];
    assert_eq!(got, want.map(|(line, reason)| (line, reason.to_string())));
    let (data, report) = parse(text.as_bytes(), BadRows::Skip).unwrap();
    assert_eq!((data.events.len(), report.rows, report.bad_rows), (1, 12, 11));
    assert!(report.to_string().ends_with("\n  and 1 more"), "{report}");

    let recbole = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ti\t0\t1\nu\ti\t-1\t1\nu\ti\t\t1\nu\ti\t1\t1970-01-01T00:00:00Z\n";
    let want = [
        (2, "the rating \"0\" is not a finite number above 0"),
        (3, "the rating \"-1\" is not a finite number above 0"),
        (4, "the rating \"\" is not a finite number above 0"),
        (5, "the timestamp \"1970-01-01T00:00:00Z\" is not a time in Unix seconds"),
    ];
    assert_eq!(reasons(recbole), want.map(|(line, reason)| (line, reason.to_string())));
}

#[test]
fn text_that_is_not_utf8_is_a_bad_row() {
    let text = [CSV.as_bytes(), b"u\xff,i,view,1,\nu,i,view,1,\n"].concat();
    let (data, report) = parse(text.as_slice(), BadRows::Skip).unwrap();
    assert_eq!(events(&data).len(), 1);
    assert_eq!(report.first_bad_rows, [BadRow { line: 2, reason: "the user id is not UTF-8".into() }]);
}

#[test]
fn strict_refuses_and_lists() {
    let text = format!("{CSV}u,i,view,1,\nu,i,look,1,\nu,j,view,1,\n");
    assert_eq!(parse(text.as_bytes(), BadRows::Skip).unwrap().0.events.len(), 2);
    let Err(ParseError::BadRows(report)) = parse(text.as_bytes(), BadRows::Refuse) else { panic!("not refused") };
    assert_eq!((report.rows, report.bad_rows, report.first_bad_rows[0].line), (3, 1, 3));
}

#[test]
fn duplicates_are_counted_and_are_not_bad() {
    let text = format!("{CSV}u,i,view,1,\nu,i,view,1.0,7\nu,i,cart,1,\n");
    let (data, report) = parse(text.as_bytes(), BadRows::Refuse).unwrap();
    assert_eq!(events(&data), [("u", "i", EventKind::View, 1000, 1.0), ("u", "i", EventKind::Cart, 1000, 2.0)]);
    assert_eq!((report.rows, report.bad_rows, report.duplicates), (3, 0, 1));
}

#[test]
fn a_file_without_usable_rows_is_an_error() {
    assert!(matches!(parse(CSV.as_bytes(), BadRows::Skip), Err(ParseError::NoRows(r)) if r.rows == 0));
    let text = format!("{CSV}u,i,look,1,\n");
    assert!(matches!(parse(text.as_bytes(), BadRows::Skip), Err(ParseError::NoRows(r)) if r.bad_rows == 1));
}

fn kind() -> impl Strategy<Value = EventKind> {
    (0_u8..4).prop_map(|code| EventKind::from_code(code).unwrap())
}

proptest! {
    #[test]
    fn written_csv_reads_back_equal(
        rows in prop::collection::vec(
            ("[\\PC]{1,5}", "[ \",a-c\u{feff}é]{1,4}", kind(), 0_i64..253_402_300_799_999, 0.001_f32..1e6),
            1..40,
        )
    ) {
        let mut b = DatasetBuilder::default();
        for (user, item, kind, at_ms, weight) in &rows {
            b.push(user, item, *kind, *at_ms, *weight).unwrap();
        }
        let (data, _) = b.finish();
        let mut csv = Vec::new();
        write_csv(&data, &mut csv).unwrap();
        let (again, report) = parse(csv.as_slice(), BadRows::Refuse).unwrap();
        prop_assert_eq!(report.duplicates, 0);
        prop_assert_eq!(again, data);
    }

    #[test]
    fn any_bytes_are_an_answer_not_a_panic(
        recbole in any::<bool>(),
        body in prop::collection::vec(prop_oneof![
            4 => prop::sample::select(b"\t,\"\r\n0123.-eTZ:uiview".to_vec()),
            1 => any::<u8>(),
        ], 0..300),
    ) {
        let header: &[u8] =
            if recbole { b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" } else { CSV.as_bytes() };
        let text = [header, &body].concat();
        if let Ok((data, report)) = parse(text.as_slice(), BadRows::Skip) {
            prop_assert_eq!(report.rows, data.events.len() as u64 + report.bad_rows + report.duplicates);
        }
        let _ = parse(body.as_slice(), BadRows::Skip);
    }
}

#[test]
fn times_are_read_as_rfc_3339_and_rounded_down() {
    for (text, ms) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29t12:00:00.25z", Some(951_825_600_250)),
        ("2024-03-01 00:30:00.123999+01:00", Some(1_709_249_400_123)),
        ("2024-02-29T19:00:00-04:30", Some(1_709_249_400_000)),
        ("2016-12-31T23:59:60Z", Some(1_483_228_799_000)),
        ("1969-12-31T23:59:59.9999Z", Some(-1)),
        ("2024-01-01", None),
        ("2024-01-01T00:00:00", None),
        ("2023-02-29T00:00:00Z", None),
        ("2024-01-01T24:00:00Z", None),
        ("2024-01-01T00:00:00.Z", None),
        ("2024-01-01T00:00:00+1:00", None),
    ] {
        assert_eq!(unix_ms(text), ms, "{text}");
    }
}
