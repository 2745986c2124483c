//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="halfopen exec --listen 7000 --" cargo test

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

#[test]
fn what_is_written_in_an_outage_is_answered_after_it() {
    let mut client = TcpStream::connect(("server", 7000)).unwrap();
    let ordered = Command::new("halfopen").args(["fault", "flap", "--for", "1s"]).status().unwrap();
    assert!(ordered.success());
    client.write_all(b"x").unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"x");
}
