//! Numbers that carry their unit.

use std::{fmt, ops, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// Microseconds since this process's epoch, on its monotonic clock.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MediaTime(u64);

impl MediaTime {
    /// The time that many microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time between `earlier` and this time; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The RTP timestamp of this time at `clock_rate` hertz, modulo 2³² (RFC 3550, section 5.1).
    pub const fn rtp(self, clock_rate: u32) -> u32 {
        (self.0 as u128 * clock_rate as u128 / 1_000_000) as u32
    }
}

impl ops::Add<Duration> for MediaTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span.as_micros() as u64)
    }
}

/// Bits per second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Bitrate(u64);

impl Bitrate {
    /// That many bits per second.
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    /// That many thousand bits per second.
    pub const fn from_kbps(kbps: u64) -> Self {
        Self(kbps * 1000)
    }

    /// Bits per second.
    pub const fn as_bps(self) -> u64 {
        self.0
    }
}

/// Why a text is not a bitrate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a rate is more than 0 and ends in bit, kbit or Mbit, such as 1.5Mbit, not `{0}`")]
pub struct BitrateError(pub String);

impl FromStr for Bitrate {
    type Err = BitrateError;

    /// `1.5Mbit`, `600kbit` or `64000bit`, up to 1 Tbit.
    fn from_str(text: &str) -> Result<Self, BitrateError> {
        let error = || BitrateError(text.to_owned());
        let number = text.strip_suffix("bit").ok_or_else(error)?;
        let (number, unit) = if let Some(number) = number.strip_suffix('M') {
            (number, 1e6)
        } else if let Some(number) = number.strip_suffix('k') {
            (number, 1e3)
        } else {
            (number, 1.0)
        };
        let bps = number.parse::<f64>().map_err(|_| error())? * unit;
        if (1.0..=1e12).contains(&bps) { Ok(Self::from_bps(bps as u64)) } else { Err(error()) }
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0 / 1000)
    }
}

/// The width and height of a video frame in pixels, both even and at least 2 (I420 halves them).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Size {
    /// The width.
    pub width: u32,
    /// The height.
    pub height: u32,
}

impl Size {
    /// The size, each side rounded down to an even number of at least 2.
    pub const fn new(width: u32, height: u32) -> Self {
        const fn even(side: u32) -> u32 {
            if side < 2 { 2 } else { side & !1 }
        }
        Self { width: even(width), height: even(height) }
    }

    /// Bytes of one I420 frame of this size: the Y plane, then U, then V, without padding.
    pub const fn i420_bytes(self) -> usize {
        self.width as usize * self.height as usize * 3 / 2
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rtp_timestamp_wraps_and_keeps_its_rate() {
        assert_eq!(MediaTime::from_micros(1_000_000).rtp(90_000), 90_000);
        let day = MediaTime::from_micros(86_400_000_000);
        let later = day + Duration::from_millis(40);
        assert_eq!(later.rtp(90_000).wrapping_sub(day.rtp(90_000)), 3600);
    }

    #[test]
    fn an_odd_size_becomes_even() {
        assert_eq!(Size::new(641, 361), Size { width: 640, height: 360 });
        assert_eq!(Size::new(0, 1).i420_bytes(), 6);
    }
}
