//! The description of a bad network, for `--impair` and for tests.

use std::{str::FromStr, time::Duration};

use crate::model::{Bitrate, BitrateError};

/// What happens to the datagrams that a connection sends. The default is a perfect network.
/// Its text form is a list of `key=value`:
/// `loss=0.05,burst=3,delay=50ms,jitter=20ms,rate=1Mbit,queue=300ms,seed=7`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Impairment {
    /// Seeds the losses and delays: with the same seed, the same packets are lost and delayed. A
    /// changed seed begins anew.
    pub seed: u64,
    /// The share of datagrams that are lost, from 0 to 1.
    pub loss: f64,
    /// The mean number of datagrams that are lost in a row (the model of Gilbert, 1960). At 1, each
    /// is lost independently of the others.
    pub burst: f64,
    /// The share of datagrams in which one bit is flipped, from 0 to 1.
    pub flip: f64,
    /// The delay of each datagram.
    pub delay: Duration,
    /// The maximum extra delay; datagrams may overtake each other.
    pub jitter: Duration,
    /// The rate of the bottleneck; `None` for no limit.
    pub rate: Option<Bitrate>,
    /// How long a datagram may wait for the bottleneck; one that would wait longer is dropped (tail
    /// drop).
    pub queue: Duration,
    /// Whether all datagrams are dropped, in both directions.
    pub down: bool,
}

impl Impairment {
    /// A perfect network: no loss, no delay, no limit.
    pub const NONE: Self = Self {
        seed: 0,
        loss: 0.0,
        burst: 1.0,
        flip: 0.0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        rate: None,
        // The drop-tail queue of RFC 8867, section 4.4.
        queue: Duration::from_millis(300),
        down: false,
    };
}

impl Default for Impairment {
    fn default() -> Self {
        Self::NONE
    }
}

/// The longest delay, jitter or queue that is accepted.
const MAX_SPAN: Duration = Duration::from_secs(10);

impl FromStr for Impairment {
    type Err = ImpairmentError;

    fn from_str(text: &str) -> Result<Self, ImpairmentError> {
        let mut impairment = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(ImpairmentError::NoValue(part.trim().to_owned()));
            };
            let (key, value) = (key.trim(), value.trim());
            match key {
                "loss" => impairment.loss = share(key, value)?,
                "burst" => impairment.burst = burst(value)?,
                "flip" => impairment.flip = share(key, value)?,
                "delay" => impairment.delay = span(key, value)?,
                "jitter" => impairment.jitter = span(key, value)?,
                "queue" => impairment.queue = span(key, value)?,
                "rate" => impairment.rate = Some(value.parse()?),
                "seed" => {
                    let seed = value.parse();
                    impairment.seed = seed.map_err(|_| ImpairmentError::Seed(value.to_owned()))?;
                }
                _ => return Err(ImpairmentError::Unknown(key.to_owned())),
            }
        }
        Ok(impairment)
    }
}

/// Why a text is not a valid impairment.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImpairmentError {
    /// A key without a value.
    #[error("`{0}` has no value; write it as in `loss=0.05,delay=50ms`")]
    NoValue(String),
    /// A key that does not exist.
    #[error(
        "`{0}` cannot be impaired; there are loss, burst, flip, delay, jitter, rate, queue and seed"
    )]
    Unknown(String),
    /// A share that is not between 0 and 1.
    #[error("{key} is a share between 0 and 1 such as 0.05, not `{value}`")]
    Share {
        /// The key.
        key: String,
        /// The invalid value.
        value: String,
    },
    /// A burst that is not a number of datagrams.
    #[error("burst is a mean number of packets from 1 to 100 such as 3, not `{0}`")]
    Burst(String),
    /// A span of time without a unit, or too long.
    #[error("{key} is a time of at most 10s such as 50ms or 1.5s, not `{value}`")]
    Span {
        /// The key.
        key: String,
        /// The invalid value.
        value: String,
    },
    /// A rate without a unit, or zero.
    #[error(transparent)]
    Rate(#[from] BitrateError),
    /// A seed that is not a whole number.
    #[error("seed is a whole number, not `{0}`")]
    Seed(String),
}

fn share(key: &str, value: &str) -> Result<f64, ImpairmentError> {
    let error = || ImpairmentError::Share { key: key.to_owned(), value: value.to_owned() };
    value.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(error)
}

fn burst(value: &str) -> Result<f64, ImpairmentError> {
    let error = || ImpairmentError::Burst(value.to_owned());
    value.parse().ok().filter(|mean| (1.0..=100.0).contains(mean)).ok_or_else(error)
}

fn span(key: &str, value: &str) -> Result<Duration, ImpairmentError> {
    let error = || ImpairmentError::Span { key: key.to_owned(), value: value.to_owned() };
    let (number, unit) = if let Some(number) = value.strip_suffix("ms") {
        (number, 0.001)
    } else {
        (value.strip_suffix('s').ok_or_else(error)?, 1.0)
    };
    let seconds = number.parse::<f64>().map_err(|_| error())? * unit;
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| error())?;
    if span > MAX_SPAN { Err(error()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impairment_is_parsed_from_text() {
        let text =
            "loss=0.05, delay=50ms,burst=2.5,flip=0.01,jitter=20ms,rate=1.5Mbit,queue=0.2s,seed=7";
        let impairment = Impairment {
            seed: 7,
            loss: 0.05,
            burst: 2.5,
            flip: 0.01,
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(20),
            rate: Some(Bitrate::from_kbps(1500)),
            queue: Duration::from_millis(200),
            down: false,
        };
        assert_eq!(text.parse(), Ok(impairment));
        assert_eq!("".parse(), Ok(Impairment::default()));
    }

    #[test]
    fn an_error_names_the_invalid_part_and_what_is_valid() {
        let sentence = |text: &str| text.parse::<Impairment>().unwrap_err().to_string();
        assert!(sentence("los=0.1").contains("`los` cannot be impaired; there are loss, burst"));
        assert!(sentence("flip=2").starts_with("flip is a share"));
        assert!(sentence("loss").contains("`loss` has no value"));
        for wrong in ["loss=5", "loss=-0.1", "loss=nan", "loss=5%"] {
            assert!(sentence(wrong).contains("a share between 0 and 1"), "{wrong}");
        }
        for wrong in ["delay=50", "delay=-1s", "delay=11s", "delay=nans", "delay=1e400s"] {
            assert!(sentence(wrong).starts_with("delay is a time"), "{wrong}");
        }
        for wrong in ["rate=1000", "rate=0kbit", "rate=xMbit", "rate=nanbit"] {
            assert!(sentence(wrong).contains("ends in bit, kbit or Mbit"), "{wrong}");
        }
        for wrong in ["burst=0", "burst=101", "burst=nan", "burst=3ms"] {
            assert!(sentence(wrong).contains("number of packets from 1 to 100"), "{wrong}");
        }
        assert!(sentence("seed=x").contains("whole number"));
    }
}
