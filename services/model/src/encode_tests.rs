use std::num::NonZero;

use proptest::prelude::*;

use super::*;
use crate::generate::{GenerateParams, generate};

type Rows = (Vec<u8>, Vec<(String, Vec<u8>)>);

fn small() -> NeighbourModel {
    let params = GenerateParams { users: 60, items: 40, clusters: 4, ..GenerateParams::default() };
    NeighbourModel::build(&generate(&params).unwrap(), NonZero::<usize>::MIN)
}

fn rows_of(model: &NeighbourModel) -> Rows {
    let (header, rows) = model.to_rows();
    (header, rows.map(|(id, row)| (id.to_string(), row)).collect())
}

fn error(rows: Rows) -> DecodeError {
    NeighbourModel::from_rows(&rows.0, rows.1).unwrap_err()
}

#[test]
fn rows_in_any_order_give_the_model_back() {
    let model = small();
    let (header, mut rows) = rows_of(&model);
    assert_eq!(NeighbourModel::from_rows(&header, rows.clone()).unwrap(), model);
    rows.reverse();
    rows.swap(3, 17);
    assert_eq!(NeighbourModel::from_rows(&header, rows).unwrap(), model);
}

#[test]
fn the_empty_model_too() {
    let model = NeighbourModel::build(&crate::Dataset::default(), NonZero::<usize>::MIN);
    let (header, rows) = rows_of(&model);
    assert_eq!(NeighbourModel::from_rows(&header, rows).unwrap(), model);
}

/// Written by the build that summed over whole histories: two pairs, items in order of appearance, a history cap of 200.
#[test]
fn models_of_earlier_versions_still_load() {
    let bytes = |hex: &str| -> Vec<u8> {
        let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
        hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    };
    let header = "010300000002000000000000000300000000000000c8000000640000000000003f000020410000f041000040400000f04103000000\
                  010000000000803f000000000000003f020000000000003f";
    let rows =
        [("b", "0100000000010001000000d43c9f3e"), ("a", "0101000000010000000000d43c9f3e"), ("c", "01020000000000")];
    let rows: Vec<(String, Vec<u8>)> = rows.map(|(id, row)| (id.to_owned(), bytes(row))).into();
    let model = NeighbourModel::from_rows(&bytes(header), rows.clone()).unwrap();
    assert_eq!(model.built_from(), BuiltFrom { users: 2, events: 3 });
    assert_eq!(*model.params(), Params { history_cap: 200, ..Params::default() });
    assert_eq!((model.index_of("b"), model.index_of("a"), model.index_of("c")), (Some(0), Some(1), Some(2)));
    assert_eq!(model.neighbours(0), [(1, 0.311_010_96)]);
    assert_eq!(model.popular(), [(1, 1.0), (0, 0.5), (2, 0.5)]);
    // The layout is the same in both directions.
    assert_eq!(rows_of(&model), (bytes(header), rows));
}

#[test]
fn what_cannot_be_a_model_is_explained() {
    let good = rows_of(&small());
    let with = |change: &dyn Fn(&mut Rows)| {
        let mut rows = good.clone();
        change(&mut rows);
        error(rows)
    };
    let part = "i00002".to_string();
    assert_eq!(with(&|r| r.0[0] = 9), DecodeError::Version { part: "the header".into(), found: 9 });
    assert_eq!(with(&|r| r.1[2].1[0] = 0), DecodeError::Version { part: part.clone(), found: 0 });
    assert_eq!(with(&|r| r.0.truncate(50)), DecodeError::Truncated("the header".into()));
    assert_eq!(with(&|r| r.1[2].1.clear()), DecodeError::Truncated(part.clone()));
    assert_eq!(with(&|r| r.1[2].1.push(0)), DecodeError::TrailingBytes(part.clone()));
    assert_eq!(with(&|r| r.0.push(0)), DecodeError::TrailingBytes("the header".into()));
    let nan = f32::NAN.to_le_bytes();
    assert_eq!(with(&|r| r.0[29..33].copy_from_slice(&nan)), DecodeError::Param(BadParam("damping")));
    assert_eq!(with(&|r| r.1[2].1[11..15].copy_from_slice(&nan)), DecodeError::Score(part.clone()));
    assert_eq!(with(&|r| r.1[2].1[7] = 40), DecodeError::ItemOutOfRange { part: part.clone(), item: 40, items: 40 });
    assert_eq!(with(&|r| r.1[2].1[1] = 41), DecodeError::ItemOutOfRange { part, item: 41, items: 40 });
    assert_eq!(with(&|r| drop(r.1.pop())), DecodeError::RowCount { promised: 40, found: 39 });
    assert_eq!(with(&|r| r.1[2].1 = r.1[3].1.clone()), DecodeError::RowTwice(3));
    assert_eq!(with(&|r| r.1[2].0 = "i00003".into()), DecodeError::ItemIdTwice("i00003".into()));
    assert_eq!(with(&|r| r.1[2].0.clear()), DecodeError::ItemId { id: String::new(), error: IdError::Empty });
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        header in prop::collection::vec(any::<u8>(), 0..100),
        rows in prop::collection::vec((".{0,3}", prop::collection::vec(any::<u8>(), 0..40)), 0..4),
    ) {
        let mut header = header;
        if let Some(version) = header.first_mut() {
            *version %= 2;
        }
        let _ = NeighbourModel::from_rows(&header, rows);
    }

    /// Almost valid bytes get further than arbitrary ones; a model that is accepted must be usable.
    #[test]
    fn damaged_rows_are_an_error_or_a_sound_model(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        in_header in any::<bool>(),
    ) {
        let (mut header, mut rows) = rows_of(&small());
        for (row, at, byte) in damage {
            let bytes = if in_header { &mut header } else { &mut row.get_mut(&mut rows).1 };
            *at.get_mut(bytes) = byte;
        }
        if let Ok(model) = NeighbourModel::from_rows(&header, rows) {
            let history: Vec<_> = (0..40).step_by(3).map(|item| crate::HistoryItem { item, weight: 1.0 }).collect();
            let answer = model.rank(&history, 20, &mut crate::Scratch::default());
            prop_assert!(answer.iter().all(|&(item, _)| model.item(item).is_some()));
        }
    }
}
