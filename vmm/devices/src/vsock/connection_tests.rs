//! Each transition of [`Connection`], with no socket and no queue.

use super::*;

const CID: u64 = 3;
const KEY: Key = Key { host_port: 1000, guest_port: 52 };
const SIZE: u32 = 1000;
const PEER_SIZE: u32 = 600;

fn packet(op: Op) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: KEY.guest_port,
        dst_port: KEY.host_port,
        len: 0,
        kind: TYPE_STREAM,
        op,
        flags: 0,
        buf_alloc: PEER_SIZE,
        fwd_cnt: 0,
    }
}

fn data(len: u32) -> Header {
    Header { len, ..packet(Op::Data) }
}

fn shutdown(flags: u32) -> Header {
    Header { flags, ..packet(Op::Shutdown) }
}

/// The op and flags of the packet that has to be sent now.
fn sent(connection: &mut Connection) -> Option<(Op, u32)> {
    let has_output = connection.has_output(false);
    match connection.output(false) {
        Output::Control(header) => {
            assert!(has_output);
            assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
            assert_eq!((header.src_port, header.dst_port), (KEY.host_port, KEY.guest_port));
            Some((header.op, header.flags))
        }
        Output::Nothing => {
            assert!(!has_output);
            None
        }
        Output::Data { .. } => panic!("there is nothing to read"),
    }
}

fn open_from_guest() -> Connection {
    let mut connection = Connection::from_guest(KEY, &packet(Op::Request), SIZE);
    assert_eq!(sent(&mut connection), Some((Op::Response, 0)));
    assert_eq!(sent(&mut connection), None);
    connection
}

fn open_from_host() -> Connection {
    let mut connection = Connection::from_host(KEY, CID, SIZE);
    assert_eq!(sent(&mut connection), Some((Op::Request, 0)));
    assert_eq!(connection.receive(&packet(Op::Response)), Received::Accepted);
    connection
}

fn assert_aborted(mut connection: Connection) {
    assert_eq!(connection.state(), State::Resetting);
    assert_eq!(connection.socket_action(), Some(SocketAction::Close));
    assert_eq!(sent(&mut connection), Some((Op::Reset, 0)));
    assert_eq!(connection.state(), State::Closed);
    assert_eq!(sent(&mut connection), None);
    assert_eq!(connection.socket_action(), None);
}

#[test]
fn a_host_program_is_accepted() {
    let mut connection = open_from_host();
    assert_eq!(connection.state(), State::Open);
    assert_eq!(connection.output(true), Output::Data { max: PEER_SIZE });
}

#[test]
fn nothing_is_read_before_the_guest_accepts() {
    let mut connection = Connection::from_host(KEY, CID, SIZE);
    assert_eq!(sent(&mut connection), Some((Op::Request, 0)));
    assert!(!connection.has_output(true));
    assert_eq!(connection.output(true), Output::Nothing);
}

#[test]
fn a_refused_host_program_is_closed() {
    let mut connection = Connection::from_host(KEY, CID, SIZE);
    assert_eq!(sent(&mut connection), Some((Op::Request, 0)));
    assert_eq!(connection.receive(&packet(Op::Reset)), Received::Noted);
    assert_eq!(connection.socket_action(), Some(SocketAction::Close));
    assert_eq!(sent(&mut connection), None);
}

#[test]
fn a_response_before_the_request_is_sent_is_a_breach() {
    let mut connection = Connection::from_host(KEY, CID, SIZE);
    assert_eq!(connection.receive(&packet(Op::Response)), Received::Noted);
    assert_aborted(connection);
}

#[test]
fn breaches_reset() {
    for op in [Op::Request, Op::Response, Op::Unknown(0), Op::Unknown(8)] {
        let mut connection = open_from_guest();
        assert_eq!(connection.receive(&packet(op)), Received::Noted);
        assert_aborted(connection);
    }
    let mut connection = Connection::from_guest(KEY, &packet(Op::Request), SIZE);
    assert_eq!(connection.receive(&data(1)), Received::Noted);
    assert_aborted(connection);
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&shutdown(SHUTDOWN_SEND)), Received::Noted);
    assert_eq!(connection.receive(&data(1)), Received::Noted);
    assert_aborted(connection);
}

#[test]
fn more_than_the_advertised_credit_resets() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(SIZE)), Received::Payload);
    assert_eq!(connection.receive(&data(1)), Received::Noted);
    assert_aborted(connection);

    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(u32::MAX)), Received::Noted);
    assert_aborted(connection);

    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(SIZE)), Received::Payload);
    connection.forwarded(SIZE);
    assert_eq!(connection.receive(&data(1)), Received::Noted, "the guest does not know of the room yet");
    assert_aborted(connection);
}

#[test]
fn credit_is_returned_when_half_is_used_and_delivered() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(SIZE / 2)), Received::Payload);
    connection.forwarded(SIZE / 2);
    assert_eq!(sent(&mut connection), None);
    assert_eq!(connection.receive(&data(1)), Received::Payload);
    assert_eq!(sent(&mut connection), Some((Op::CreditUpdate, 0)));
    assert_eq!(sent(&mut connection), None);
    assert_eq!(connection.receive(&data(SIZE - 1)), Received::Payload);
}

#[test]
fn credit_is_not_returned_under_backpressure() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(SIZE)), Received::Payload);
    assert_eq!(sent(&mut connection), None);
    assert!(!connection.drained());
    connection.forwarded(10);
    let Output::Control(header) = connection.output(false) else { panic!("an update is due") };
    assert_eq!((header.op, header.buf_alloc, header.fwd_cnt), (Op::CreditUpdate, SIZE, 10));
}

#[test]
fn a_request_for_credit_is_answered() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&packet(Op::CreditRequest)), Received::Noted);
    assert_eq!(sent(&mut connection), Some((Op::CreditUpdate, 0)));
}

#[test]
fn the_guest_is_asked_once_for_credit_and_sent_no_more_than_it_gives() {
    let mut connection = open_from_guest();
    let header = connection.data_header(PEER_SIZE);
    assert_eq!((header.op, header.len), (Op::Data, PEER_SIZE));
    assert!(connection.has_output(true));
    let Output::Control(header) = connection.output(true) else { panic!("credit is to be asked for") };
    assert_eq!(header.op, Op::CreditRequest);
    assert!(!connection.has_output(true));
    assert_eq!(connection.output(true), Output::Nothing);

    assert_eq!(connection.receive(&Header { fwd_cnt: 7, ..packet(Op::CreditUpdate) }), Received::Noted);
    assert_eq!(connection.output(true), Output::Data { max: 7 });
    // A guest that takes its buffer back below what is under way gets nothing, and nothing wraps.
    let shrunk = Header { fwd_cnt: 7, buf_alloc: 1, ..packet(Op::CreditUpdate) };
    assert_eq!(connection.receive(&shrunk), Received::Noted);
    assert!(!matches!(connection.output(true), Output::Data { .. }));
}

#[test]
fn counters_wrap() {
    let mut connection = open_from_guest();
    connection.credit.received = u32::MAX - 1;
    connection.credit.forwarded = u32::MAX - 1;
    connection.credit.told = u32::MAX - 1;
    connection.credit.sent = u32::MAX - 1;
    assert_eq!(connection.receive(&Header { fwd_cnt: u32::MAX - 1, ..data(10) }), Received::Payload);
    assert!(!connection.drained());
    connection.forwarded(10);
    assert!(connection.drained());
    connection.data_header(PEER_SIZE);
    assert_eq!(connection.receive(&Header { fwd_cnt: 8, ..packet(Op::CreditUpdate) }), Received::Noted);
    assert_eq!(connection.output(true), Output::Data { max: 10 });
}

#[test]
fn the_end_of_the_host_program_is_announced_once() {
    let mut connection = open_from_guest();
    connection.host_ended();
    assert_eq!(sent(&mut connection), Some((Op::Shutdown, SHUTDOWN_SEND)));
    assert_eq!(sent(&mut connection), None);
    assert_eq!(connection.receive(&data(5)), Received::Payload, "the other direction stays open");
    assert_eq!(connection.socket_action(), None);
}

#[test]
fn the_end_of_the_guest_reaches_the_socket_after_its_data() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(5)), Received::Payload);
    assert_eq!(connection.receive(&shutdown(SHUTDOWN_SEND)), Received::Noted);
    assert_eq!(connection.socket_action(), None);
    connection.forwarded(5);
    assert_eq!(connection.socket_action(), Some(SocketAction::ShutdownWrite));
    assert_eq!(connection.socket_action(), None);
    assert_eq!(connection.output(true), Output::Data { max: PEER_SIZE }, "the other direction stays open");
}

#[test]
fn a_guest_that_reads_no_more_stops_the_host_program() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&shutdown(SHUTDOWN_RECEIVE)), Received::Noted);
    assert_eq!(connection.socket_action(), Some(SocketAction::ShutdownRead));
    assert!(!connection.has_output(true));
    assert_eq!(connection.receive(&data(5)), Received::Payload);
}

#[test]
fn a_guest_that_closes_is_reset_after_its_data_is_delivered() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(5)), Received::Payload);
    assert_eq!(connection.receive(&shutdown(SHUTDOWN_BOTH)), Received::Noted);
    assert_eq!(connection.socket_action(), Some(SocketAction::ShutdownRead));
    assert_eq!(sent(&mut connection), None);
    connection.forwarded(5);
    assert_eq!(connection.socket_action(), Some(SocketAction::Close));
    assert_eq!(sent(&mut connection), Some((Op::Reset, 0)));
    assert_eq!(connection.state(), State::Closed);
}

#[test]
fn a_reset_by_the_guest_loses_nothing_that_it_sent() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(5)), Received::Payload);
    assert_eq!(connection.receive(&packet(Op::Reset)), Received::Noted);
    assert_eq!(connection.state(), State::Closed);
    assert_eq!(connection.socket_action(), None);
    connection.forwarded(5);
    assert_eq!(connection.socket_action(), Some(SocketAction::Close));
    assert_eq!(sent(&mut connection), None);
}

#[test]
fn what_a_gone_host_program_would_have_got_is_dropped() {
    let mut connection = open_from_guest();
    assert_eq!(connection.receive(&data(5)), Received::Payload);
    connection.host_left();
    assert!(connection.drained());
    assert_eq!(sent(&mut connection), Some((Op::Shutdown, SHUTDOWN_RECEIVE)));
    assert_eq!(connection.receive(&data(6)), Received::Noted, "sent before the guest heard of it");
    assert_eq!(connection.output(true), Output::Data { max: PEER_SIZE }, "what it has sent is still to be read");
    connection.host_ended();
    assert_eq!(sent(&mut connection), Some((Op::Shutdown, SHUTDOWN_BOTH)));
    assert_eq!(connection.socket_action(), Some(SocketAction::Close));
    assert_eq!(connection.receive(&packet(Op::Reset)), Received::Noted);
    assert_eq!(connection.state(), State::Closed);
}

#[test]
fn two_half_closes_make_a_whole() {
    let mut connection = open_from_guest();
    connection.host_ended();
    assert_eq!(sent(&mut connection), Some((Op::Shutdown, SHUTDOWN_SEND)));
    assert_eq!(connection.receive(&shutdown(SHUTDOWN_SEND)), Received::Noted);
    assert_eq!(sent(&mut connection), Some((Op::Shutdown, SHUTDOWN_BOTH)));
    assert_eq!(connection.socket_action(), Some(SocketAction::Close));
    assert_eq!(connection.receive(&shutdown(SHUTDOWN_BOTH)), Received::Noted);
    assert_eq!(sent(&mut connection), Some((Op::Reset, 0)));
}
