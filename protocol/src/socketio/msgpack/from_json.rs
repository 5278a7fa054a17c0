//! From arguments to msgpack values, with attachments in the places of their placeholders.
//!
//! Invariants: what is written is always one whole value in its shortest form, and it holds each attachment once at most,
//! because msgpack cannot share one: a placeholder that comes again, as no client writes it, would multiply it. The text is read twice, first to count
//! what is in each array and object, because msgpack says so in front.

use bytes::Bytes;

use super::{DEPTH_MAX, write};
use crate::socketio::json::{self, Cursor, Placeholder, Shape};

/// Appends the value of a JSON text. A text that is no JSON, is nested too deeply or names attachments that do not exist
/// is null: no decoder gives such a one.
pub(super) fn put(out: &mut Vec<u8>, text: &str, attachments: &[Bytes]) {
    let checked = json::check(text, DEPTH_MAX).and_then(|()| json::shapes(text, attachments.len()));
    match checked {
        Ok(shapes) => {
            let attachments = attachments.iter().map(Some).collect();
            Writer { out, cursor: Cursor::new(text), shapes: shapes.into_iter(), attachments }.value();
        }
        Err(_) => write::nil(out),
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    cursor: Cursor<'a>,
    /// Of the arrays and objects that were not reached yet.
    shapes: std::vec::IntoIter<Shape>,
    /// Those that were not placed yet.
    attachments: Vec<Option<&'a Bytes>>,
}

impl Writer<'_> {
    fn value(&mut self) {
        match self.cursor.peek() {
            Some(b'[' | b'{') => self.container(),
            Some(b'"') => {
                let text = json::unescape_lossy(self.cursor.scalar());
                write::text(self.out, &text);
            }
            Some(_) | None => match self.cursor.scalar() {
                "true" => write::bool(self.out, true),
                "false" => write::bool(self.out, false),
                number => write::number(self.out, number),
            },
        }
    }

    fn container(&mut self) {
        match self.shapes.next() {
            Some(Shape::Array(count)) => {
                write::array(self.out, count);
                self.cursor.eat("[");
                for _ in 0..count {
                    self.value();
                    self.cursor.eat(",");
                }
                self.cursor.eat("]");
            }
            Some(Shape::Object(count)) => {
                write::map(self.out, count);
                self.cursor.eat("{");
                for _ in 0..count {
                    let key = json::unescape_lossy(self.cursor.scalar());
                    write::text(self.out, &key);
                    self.cursor.eat(":");
                    self.value();
                    self.cursor.eat(",");
                }
                self.cursor.eat("}");
            }
            Some(Shape::Attachment(Placeholder { num, length, .. })) => {
                match self.attachments.get_mut(num).and_then(Option::take) {
                    Some(data) => write::binary(self.out, data),
                    None => write::nil(self.out),
                }
                self.cursor.pass(length);
            }
            // There is one shape for each.
            None => write::nil(self.out),
        }
    }
}
