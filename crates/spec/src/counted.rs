//! Numbers of things, for people.

use std::fmt::Display;

/// `1 segment`, `4 segments`, `2 processes`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let ending = match what {
        _ if number == N::from(1) => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        let said = [0_usize, 1, 4].map(|number| counted(number, "keepalive probe"));
        assert_eq!(said, ["0 keepalive probes", "1 keepalive probe", "4 keepalive probes"]);
    }
}
