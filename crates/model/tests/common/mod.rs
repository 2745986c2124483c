//! Parameters by their written keys, for all tests of predictions.

use spec::{Parameters, settings};

/// The defaults with these settings.
pub(crate) fn parameters<Text: AsRef<str>>(sets: &[(Text, Text)]) -> Parameters {
    let mut parameters = Parameters::default();
    for (key, value) in sets {
        let (key, value) = (key.as_ref(), value.as_ref());
        settings::apply(&mut parameters, key, value)
            .unwrap_or_else(|problem| panic!("{key}={value}: {problem}"));
    }
    parameters
}
