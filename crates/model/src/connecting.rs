//! SYN.

use crate::predict::unknown;
use crate::prediction::Prediction;
use spec::{Facts, Parameters};

pub(crate) fn predict(parameters: &Parameters, _: &Facts, _: Option<u64>) -> Prediction {
    unknown(parameters, "not modelled".into())
}
