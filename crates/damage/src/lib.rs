//! Damages bytes and documents of a known form, for property tests of what reads them: most of what is
//! left is as it should be, so that a reader gets further than its first check.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// A sample with up to four damaged places: bytes are written over, cut out, put in, or doubled.
pub fn bytes(sample: impl Into<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let sample = sample.into();
    let with = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9),
        prop::sample::select(vec![vec![0; 4], vec![0xff; 4], vec![0xff; 8], vec![0x80]]),
    ];
    let place = (any::<Index>(), 0..4_u8, 0..40_usize, with);
    prop::collection::vec(place, 0..5).prop_map(move |places| {
        let mut bytes = sample.clone();
        for (at, how, length, with) in places {
            let at = at.index(bytes.len() + 1);
            let until = |length: usize| (at + length).min(bytes.len());
            match how {
                0 => drop(bytes.splice(at..until(with.len()), with)),
                1 => drop(bytes.drain(at..until(length))),
                2 => drop(bytes.splice(at..at, with)),
                _ => bytes.extend_from_within(at..until(length)),
            }
        }
        bytes
    })
}

/// The same of a text, which stays one.
pub fn text(sample: impl Into<String>) -> impl Strategy<Value = String> {
    bytes(sample.into()).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A document in which up to three values are others.
pub fn document(sample: Value) -> impl Strategy<Value = Value> {
    let mut places = Vec::new();
    find_places(&sample, String::new(), &mut places);
    let change = (prop::sample::select(places), value());
    prop::collection::vec(change, 1..4).prop_map(move |changes| {
        let mut document = sample.clone();
        for (place, value) in changes {
            // A change before this one may have taken the place away.
            if let Some(old) = document.pointer_mut(&place) {
                *old = value;
            }
        }
        document
    })
}

/// Pointers (RFC 6901) to a value and to every value in it.
fn find_places(value: &Value, path: String, places: &mut Vec<String>) {
    let mut inside = |name: &str, value| find_places(value, format!("{path}/{name}"), places);
    match value {
        Value::Object(fields) => {
            let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
            fields.iter().for_each(|(name, value)| inside(&escaped(name), value));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| inside(&at.to_string(), value));
        }
        _ => {}
    }
    places.push(path);
}

/// What a field seldom holds.
fn value() -> impl Strategy<Value = Value> {
    let rare = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(255),
        json!(u16::MAX),
        json!(u32::MAX),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(-1e300),
        json!(""),
        json!("\0"),
        json!("1h"),
        json!("ETIMEDOUT"),
        json!([]),
        json!([1, 2]),
        json!({}),
    ];
    prop_oneof![
        prop::sample::select(rare.to_vec()),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (0..100_u8).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_document_has_a_place() {
        let document = json!({"a/b": [1, {"c": 2}]});
        let mut places = Vec::new();
        find_places(&document, String::new(), &mut places);
        let found: Vec<_> = places.iter().map(|place| document.pointer(place).unwrap()).collect();
        assert_eq!(found.len(), 5, "{places:?}");
        assert_eq!(*found[0], json!(1));
        assert_eq!(*found[1], json!(2));
    }
}
