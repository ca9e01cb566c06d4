use proptest::prelude::*;

use super::*;

const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const OK_AS_EOF: &[u8] = &[0xfe, 0, 0, 2, 0, 0, 0];
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const COLUMN: &[u8] = b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\x08\0\0\0\0";
const ERR: &[u8] = b"\xff\x28\x04#42000no";

fn more(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[3] |= 8;
    packet
}

fn stream(packets: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, payload) in packets.iter().enumerate() {
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        bytes.push((n + 1) as u8);
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// Bytes taken until done or the end, fed in pieces.
fn follow(answer: ResponseKind, deprecate_eof: bool, bytes: &[u8], piece: usize) -> Result<(usize, bool), Malformed> {
    let mut response = Response::new(answer, 1, deprecate_eof);
    let mut taken = 0;
    for piece in bytes.chunks(piece) {
        let progress = response.feed(piece)?;
        taken += progress.taken;
        if progress.done {
            return Ok((taken, true));
        }
        assert_eq!(progress.taken, piece.len());
    }
    Ok((taken, false))
}

/// The response ends with its last byte, not before, however it is cut; bytes after it are not taken.
fn ends(answer: ResponseKind, deprecate_eof: bool, packets: &[&[u8]]) {
    let mut bytes = stream(packets);
    let length = bytes.len();
    assert_eq!(follow(answer, deprecate_eof, &bytes[..length - 1], length), Ok((length - 1, false)), "{answer:?}");
    bytes.extend_from_slice(&[1, 0, 0, 9, 0xff]);
    for piece in 1..=bytes.len() {
        assert_eq!(follow(answer, deprecate_eof, &bytes, piece), Ok((length, true)), "{answer:?} in pieces of {piece}");
    }
}

fn refused(answer: ResponseKind, deprecate_eof: bool, packets: &[&[u8]]) -> Malformed {
    follow(answer, deprecate_eof, &stream(packets), usize::MAX).unwrap_err()
}

#[test]
fn single_packets() {
    for deprecate_eof in [false, true] {
        for answer in [ResponseKind::Status, ResponseKind::Results, ResponseKind::Authentication] {
            ends(answer, deprecate_eof, &[OK]);
        }
        ends(ResponseKind::Status, deprecate_eof, &[EOF]);
        ends(ResponseKind::Text, deprecate_eof, &[b"Uptime: 1"]);
        for answer in [
            ResponseKind::Status,
            ResponseKind::Text,
            ResponseKind::Fields,
            ResponseKind::Results,
            ResponseKind::Statement,
            ResponseKind::Rows,
            ResponseKind::Authentication,
        ] {
            ends(answer, deprecate_eof, &[ERR]);
        }
    }
    ends(ResponseKind::Status, true, &[OK_AS_EOF]);
}

#[test]
fn result_sets() {
    ends(ResponseKind::Results, false, &[&[2], COLUMN, COLUMN, EOF, b"\x01x\x01y", b"\xfb\xfb", EOF]);
    ends(ResponseKind::Results, true, &[&[2], COLUMN, COLUMN, b"\x01x\x01y", OK_AS_EOF]);
    // No rows; and an error in their midst.
    ends(ResponseKind::Results, false, &[&[1], COLUMN, EOF, EOF]);
    ends(ResponseKind::Results, true, &[&[1], COLUMN, OK_AS_EOF]);
    ends(ResponseKind::Results, true, &[&[1], COLUMN, b"\x01x", ERR]);
}

#[test]
fn several_results() {
    let (more_eof, more_ok) = (more(EOF), more(OK));
    ends(ResponseKind::Results, false, &[&[1], COLUMN, EOF, b"\x01x", &more_eof, &more_ok, &[1], COLUMN, EOF, EOF]);
    let mut more_ok_as_eof = OK_AS_EOF.to_vec();
    more_ok_as_eof[3] |= 8;
    ends(ResponseKind::Results, true, &[&[1], COLUMN, b"\x01x", &more_ok_as_eof, &more_ok, &more_ok, OK]);
    ends(ResponseKind::Results, true, &[&more_ok, ERR]);
}

#[test]
fn cursors_and_fetches() {
    let cursor: &[u8] = &[0xfe, 0, 0, 0x42, 0];
    ends(ResponseKind::Results, false, &[&[1], COLUMN, cursor]);
    ends(ResponseKind::Rows, false, &[&[0, 0, 1], &[0, 0, 1], EOF]);
    ends(ResponseKind::Rows, true, &[&[0, 0, 1], OK_AS_EOF]);
}

#[test]
fn statements_and_fields() {
    let statement = |columns: u8, parameters: u8| [0, 1, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0];
    ends(ResponseKind::Statement, false, &[&statement(0, 0)]);
    ends(ResponseKind::Statement, false, &[&statement(1, 2), COLUMN, COLUMN, EOF, COLUMN, EOF]);
    ends(ResponseKind::Statement, true, &[&statement(1, 2), COLUMN, COLUMN, COLUMN]);
    ends(ResponseKind::Statement, false, &[&statement(2, 0), COLUMN, COLUMN, EOF]);
    ends(ResponseKind::Statement, true, &[&statement(0, 1), COLUMN]);
    ends(ResponseKind::Fields, false, &[COLUMN, COLUMN, EOF]);
    ends(ResponseKind::Fields, true, &[OK_AS_EOF]);
}

#[test]
fn long_rows_continue() {
    // A value of 2^24 bytes: its row begins with 0xfe and fills the packet, the rest continues.
    let mut row = vec![0xfe, 0, 0, 0, 1, 0, 0, 0, 0];
    row.resize(MAX_PAYLOAD as usize, 0xff);
    for (deprecate_eof, end) in [(false, EOF), (true, OK_AS_EOF)] {
        let head: &[&[u8]] = if deprecate_eof { &[&[1], COLUMN] } else { &[&[1], COLUMN, EOF] };
        // The continuation begins with 0xff, which is no ERR.
        let packets: Vec<&[u8]> = [head, &[&row, &[0xff; 10], end]].concat();
        let bytes = stream(&packets);
        assert_eq!(follow(ResponseKind::Results, deprecate_eof, &bytes, 16_384), Ok((bytes.len(), true)));
    }
}

#[test]
fn authentication_goes_back_and_forth() {
    let mut response = Response::new(ResponseKind::Authentication, 1, true);
    assert_eq!(response.feed(&stream(&[b"\xfeplugin\0salt"])), Ok(Progress { taken: 16, done: false }));
    assert_eq!(response.client_packet(3), Err(Malformed::Sequence));
    assert_eq!(response.client_packet(2), Ok(()));
    let mut ok = stream(&[OK]);
    ok[3] = 3;
    assert_eq!(response.feed(&ok), Ok(Progress { taken: ok.len(), done: true }));
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(refused(ResponseKind::Results, true, &[b"\xfbfile"]), Malformed::LocalInfile);
    assert_eq!(refused(ResponseKind::Results, true, &[&[1, 1]]), Malformed::Response);
    assert_eq!(refused(ResponseKind::Results, true, &[&[0xfd, 0, 0, 1]]), Malformed::Response);
    assert_eq!(refused(ResponseKind::Results, true, &[&[0]]), Malformed::Response);
    assert_eq!(refused(ResponseKind::Results, true, &[&[1], COLUMN, b""]), Malformed::Empty);
    assert_eq!(refused(ResponseKind::Results, false, &[&[1], COLUMN, COLUMN]), Malformed::Response);
    assert_eq!(refused(ResponseKind::Results, false, &[&[2], COLUMN, EOF]), Malformed::Response);
    assert_eq!(refused(ResponseKind::Status, true, &[&[5]]), Malformed::Response);
    assert_eq!(refused(ResponseKind::Statement, true, &[OK]), Malformed::Response);
    let mut wrong = stream(&[&[1], COLUMN]);
    wrong[8] = 7;
    assert_eq!(follow(ResponseKind::Results, true, &wrong, 1), Err(Malformed::Sequence));
    // An ERR ends the command with any number.
    let mut late = stream(&[ERR]);
    late[3] = 7;
    assert_eq!(follow(ResponseKind::Results, true, &late, 1), Ok((late.len(), true)));
}

fn answers() -> impl Strategy<Value = ResponseKind> {
    prop::sample::select(vec![
        ResponseKind::Status,
        ResponseKind::Text,
        ResponseKind::Fields,
        ResponseKind::Results,
        ResponseKind::Statement,
        ResponseKind::Rows,
        ResponseKind::Authentication,
    ])
}

/// Packets that often make sense.
fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known = prop::sample::select(vec![
        EOF.to_vec(),
        OK_AS_EOF.to_vec(),
        OK.to_vec(),
        more(OK),
        more(EOF),
        COLUMN.to_vec(),
        vec![1],
        vec![2],
        vec![0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0],
        ERR.to_vec(),
    ]);
    prop::collection::vec(prop_oneof![4 => known, 1 => prop::collection::vec(any::<u8>(), 0..30)], 0..12)
}

/// A well-formed series of results: the packets and how they are told from the grammar.
fn results(deprecate_eof: bool) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let row = prop::collection::vec(1..0xfa_u8, 1..60);
    let rows = (1..5_usize, prop::collection::vec(row, 0..6)).prop_map(Some);
    prop::collection::vec(prop_oneof![rows, Just(None)], 1..5).prop_map(move |results| {
        let mut packets = Vec::new();
        let count = results.len();
        for (n, result) in results.into_iter().enumerate() {
            let flag = |packet: &[u8]| if n + 1 < count { more(packet) } else { packet.to_vec() };
            match result {
                None => packets.push(flag(OK)),
                Some((columns, rows)) => {
                    packets.push(vec![columns as u8]);
                    packets.extend(std::iter::repeat_n(COLUMN.to_vec(), columns));
                    if !deprecate_eof {
                        packets.push(EOF.to_vec());
                    }
                    packets.extend(rows);
                    packets.push(flag(if deprecate_eof { OK_AS_EOF } else { EOF }));
                }
            }
        }
        packets
    })
}

proptest! {
    #[test]
    fn well_formed_results_end_exactly(
        (deprecate_eof, packets) in any::<bool>().prop_flat_map(|flag| results(flag).prop_map(move |p| (flag, p))),
        piece in 1..200_usize,
    ) {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let mut bytes = stream(&packets);
        let length = bytes.len();
        prop_assert_eq!(follow(ResponseKind::Results, deprecate_eof, &bytes[..length - 1], piece), Ok((length - 1, false)));
        bytes.extend_from_slice(&[1, 2, 3]);
        prop_assert_eq!(follow(ResponseKind::Results, deprecate_eof, &bytes, piece), Ok((length, true)));
    }

    #[test]
    fn pieces_do_not_matter(
        answer in answers(), deprecate_eof in any::<bool>(), payloads in payloads(), piece in 1..64_usize,
    ) {
        let packets: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let bytes = stream(&packets);
        prop_assert_eq!(
            follow(answer, deprecate_eof, &bytes, piece),
            follow(answer, deprecate_eof, &bytes, bytes.len().max(1))
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        answer in answers(), deprecate_eof in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..300),
        piece in 1..64_usize,
    ) {
        prop_assert_eq!(
            follow(answer, deprecate_eof, &bytes, piece),
            follow(answer, deprecate_eof, &bytes, bytes.len().max(1))
        );
    }
}
