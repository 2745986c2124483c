//! Where the fields of a tracepoint's record lie: `events/*/*/format` of tracefs, which differs
//! between kernels.

/// The layout of one tracepoint's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// The number its records carry in their first two bytes.
    pub(super) id: u16,
    fields: Vec<(String, Field)>,
}

/// Where a field lies in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    offset: usize,
    size: usize,
}

impl Format {
    /// Reads a `format` file; `None` if it has no number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let id = text.lines().find_map(|line| line.strip_prefix("ID:"))?.trim().parse().ok()?;
        Some(Self { id, fields: text.lines().filter_map(parse_field).collect() })
    }

    /// A field by its name, if this kernel has it.
    pub(super) fn field(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, field)| *field)
    }
}

impl Field {
    /// Its bytes, if the record is long enough.
    pub(super) fn bytes(self, record: &[u8]) -> Option<&[u8]> {
        record.get(self.offset..self.offset.checked_add(self.size)?)
    }

    /// Its value as an unsigned number of up to eight bytes.
    pub(super) fn unsigned(self, record: &[u8]) -> Option<u64> {
        let bytes = self.bytes(record)?;
        match *bytes {
            [a] => Some(u64::from(a)),
            [a, b] => Some(u64::from(u16::from_ne_bytes([a, b]))),
            [a, b, c, d] => Some(u64::from(u32::from_ne_bytes([a, b, c, d]))),
            _ => Some(u64::from_ne_bytes(bytes.try_into().ok()?)),
        }
    }

    /// Its value as a C `int`.
    pub(super) fn int(self, record: &[u8]) -> Option<i32> {
        self.bytes(record)?.try_into().ok().map(i32::from_ne_bytes)
    }
}

/// `field:__u8 saddr[4]; offset:32; size:4; signed:0;`, with tabs between
fn parse_field(line: &str) -> Option<(String, Field)> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    let name = declaration.rsplit([' ', '\t', '*']).next()?;
    let name = name.split('[').next()?.to_string();
    let number = |part: Option<&str>, prefix: &str| part?.strip_prefix(prefix)?.parse().ok();
    let offset = number(parts.next(), "offset:")?;
    let size = number(parts.next(), "size:")?;
    Some((name, Field { offset, size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_file() {
        let format = Format::parse(include_str!("fixtures/tcp_retransmit_skb.format")).unwrap();
        assert_eq!(format.id, 2281);
        assert_eq!(format.field("common_pid"), Some(Field { offset: 4, size: 4 }));
        assert_eq!(format.field("skaddr"), Some(Field { offset: 16, size: 8 }));
        assert_eq!(format.field("saddr"), Some(Field { offset: 34, size: 4 }));
        assert_eq!(format.field("err"), Some(Field { offset: 76, size: 4 }));
        assert_eq!(format.field("error"), None);
        assert_eq!(Format::parse("name: x\nformat:\n"), None);
    }

    #[test]
    fn values_end_with_their_record() {
        let field = Field { offset: 2, size: 2 };
        assert_eq!(field.unsigned(&[0, 0, 1, 2]), Some(u64::from(u16::from_ne_bytes([1, 2]))));
        assert_eq!(field.unsigned(&[0, 0, 1]), None);
        assert_eq!(Field { offset: usize::MAX, size: 2 }.bytes(&[0]), None);
    }
}
