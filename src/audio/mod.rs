//! Arithmetic on samples: mixing, levels, tones, resampling. Names no clock, thread or device.
