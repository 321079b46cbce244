//! Scales: from a value to its pixel on an axis, and the round values that an axis shows.

/// The values of an axis and their pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// A linear scale.
    pub(crate) fn even(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if low < high { high } else { low + 1.0 };
        Self { low, high, from, to, logarithmic: false }
    }

    /// A logarithmic scale; both values are above zero.
    pub(crate) fn by_factors(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if low < high { high } else { low * 10.0 };
        Self { low, high, from, to, logarithmic: true }
    }

    /// The pixel of a value; a value off the axis is at the axis' end.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let part = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Round values to show: about five, or the powers of ten.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (-3..=6).map(|power| 10_f64.powi(power));
            return powers.filter(|p| self.low <= *p && *p <= self.high).collect();
        }
        let step = step(self.high - self.low);
        let first = (self.low / step).ceil();
        let values = (0..=20).map(|place| (first + f64::from(place)) * step);
        values.take_while(|value| *value <= self.high + step * 1e-9).collect()
    }
}

/// A round upper end, at least `most`, for an axis that begins at zero.
pub(crate) fn round_up(most: f64) -> f64 {
    let step = step(most);
    (most / step).ceil() * step
}

/// A step of 1, 2 or 5 times a power of ten, so that about five steps cover the span.
fn step(span: f64) -> f64 {
    if span.is_nan() || span <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf((span / 5.0).log10().floor());
    let factors = [1.0, 2.0, 5.0];
    let factor = factors.into_iter().find(|factor| span / 5.0 <= factor * power * 1.000_001);
    factor.unwrap_or(10.0) * power
}

/// The text of a tick's value, with no more decimals than it needs.
pub(crate) fn written(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_maps_values_to_pixels() {
        let even = Scale::even(0.0, 10.0, 100.0, 200.0);
        for (value, place) in [(0.0, 100.0), (5.0, 150.0), (10.0, 200.0), (99.0, 200.0)] {
            assert!((even.at(value) - place).abs() < 1e-9, "{value}");
        }
        // Upwards, as y axes do.
        let factors = Scale::by_factors(0.1, 1_000.0, 400.0, 0.0);
        for (value, place) in [(0.1, 400.0), (1.0, 300.0), (10.0, 200.0), (0.0, 400.0)] {
            assert!((factors.at(value) - place).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let written = |scale: Scale| scale.ticks().into_iter().map(written).collect::<Vec<_>>();
        assert_eq!(written(Scale::even(0.0, 0.8, 0.0, 1.0)), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(written(Scale::even(0.0, 3.0, 0.0, 1.0)), ["0", "1", "2", "3"]);
        assert_eq!(written(Scale::by_factors(0.1, 100.0, 0.0, 1.0)), ["0.1", "1", "10", "100"]);
        for most in [0.003, 0.7, 1.0, 4.2, 17.0, 990.0] {
            let high = round_up(most);
            let count = Scale::even(0.0, high, 0.0, 1.0).ticks().len();
            assert!(most <= high && (3..=7).contains(&count), "{most}: {high}, {count} ticks");
        }
    }
}
