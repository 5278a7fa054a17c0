//! Writes single msgpack values, each in its shortest form, as notepack does.
//!
//! Invariant: every call appends the whole head of one value. What msgpack cannot say (more than 2^32 bytes) is null.

pub(super) fn nil(out: &mut Vec<u8>) {
    out.push(0xC0);
}

pub(super) fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xC3 } else { 0xC2 });
}

/// Appends a string.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    bytes(out, text.as_bytes(), Some((0xA0, 32)), [Some(0xD9), Some(0xDA), Some(0xDB)]);
}

/// Appends a `bin`.
pub(super) fn binary(out: &mut Vec<u8>, data: &[u8]) {
    bytes(out, data, None, [Some(0xC4), Some(0xC5), Some(0xC6)]);
}

/// Appends the head of an array; that many values must follow.
pub(super) fn array(out: &mut Vec<u8>, count: u32) {
    length(out, count, Some((0x90, 16)), [None, Some(0xDC), Some(0xDD)]);
}

/// Appends the head of a map; that many pairs of values must follow.
pub(super) fn map(out: &mut Vec<u8>, count: u32) {
    length(out, count, Some((0x80, 16)), [None, Some(0xDE), Some(0xDF)]);
}

/// Appends a number of JSON: an integer if it is written as one that fits, else a float. What is no number is null.
pub(super) fn number(out: &mut Vec<u8>, text: &str) {
    if let Ok(value) = text.parse() {
        unsigned(out, value);
    } else if let Some(value) = text.parse().ok().filter(|value: &i64| *value < 0) {
        negative(out, value);
    } else if let (Ok(value), true) = (text.parse::<f64>(), text.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
    {
        out.push(0xCB);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        nil(out);
    }
}

/// Appends an integer of at least zero.
pub(super) fn unsigned(out: &mut Vec<u8>, value: u64) {
    match (u8::try_from(value), u16::try_from(value), u32::try_from(value)) {
        (Ok(value), _, _) if value < 0x80 => out.push(value),
        (Ok(value), _, _) => out.extend([0xCC, value]),
        (_, Ok(value), _) => put(out, 0xCD, &value.to_be_bytes()),
        (_, _, Ok(value)) => put(out, 0xCE, &value.to_be_bytes()),
        (_, _, Err(_)) => put(out, 0xCF, &value.to_be_bytes()),
    }
}

fn negative(out: &mut Vec<u8>, value: i64) {
    match (i8::try_from(value), i16::try_from(value), i32::try_from(value)) {
        (Ok(value), _, _) if value >= -32 => out.extend(value.to_be_bytes()),
        (Ok(value), _, _) => put(out, 0xD0, &value.to_be_bytes()),
        (_, Ok(value), _) => put(out, 0xD1, &value.to_be_bytes()),
        (_, _, Ok(value)) => put(out, 0xD2, &value.to_be_bytes()),
        (_, _, Err(_)) => put(out, 0xD3, &value.to_be_bytes()),
    }
}

fn bytes(out: &mut Vec<u8>, data: &[u8], within: Option<(u8, u32)>, formats: [Option<u8>; 3]) {
    match u32::try_from(data.len()) {
        Ok(size) => {
            length(out, size, within, formats);
            out.extend_from_slice(data);
        }
        Err(_) => nil(out),
    }
}

/// A length `within` a format byte (its base, and what it cannot hold any more), or behind one in 1, 2 or 4 bytes.
fn length(out: &mut Vec<u8>, length: u32, within: Option<(u8, u32)>, formats: [Option<u8>; 3]) {
    let [one, two, four] = formats;
    match (within, u8::try_from(length), u16::try_from(length)) {
        (Some((base, end)), Ok(short), _) if length < end => out.push(base | short),
        (_, Ok(short), _) if one.is_some() => out.extend(one.into_iter().chain([short])),
        (_, _, Ok(medium)) => out.extend(two.into_iter().chain(medium.to_be_bytes())),
        (_, _, Err(_)) => out.extend(four.into_iter().chain(length.to_be_bytes())),
    }
}

fn put(out: &mut Vec<u8>, format: u8, value: &[u8]) {
    out.push(format);
    out.extend_from_slice(value);
}
