//! Fuzzes one Engine.IO packet in text form: what can be read is written back as something that reads the same.

#![no_main]

use bytestring::ByteString;
use libfuzzer_sys::fuzz_target;
use protocol::engine::Packet;

fuzz_target!(|text: &str| {
    let Ok(packet) = Packet::decode_text(&ByteString::from(text)) else { return };
    let mut written = Vec::new();
    packet.encode(&mut written);
    assert_eq!(written.len(), packet.encoded_len());
    let written = ByteString::try_from(written).expect("a packet in text form is UTF-8");
    assert_eq!(Packet::decode_text(&written), Ok(packet));
});
