//! The model: 64 pixels → `hidden` rectified units → 10 classes, softmax cross-entropy.
//!
//! All parameters lie in one flat list, because that is the form in which they are checkpointed and moved. The
//! order of every sum is fixed and nothing runs in parallel, so that the same steps give the same bits: a
//! resumed attempt can then be compared with an uninterrupted one by equality.

use super::data::{CLASSES, Image, PIXELS};
use super::rng::Rng;

/// Where each layer lies in the flat list, and how to run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mlp {
    pub(super) hidden: usize,
}

/// Room for one image's activations, reused so that a step allocates nothing.
#[derive(Debug)]
pub(super) struct Scratch {
    units: Vec<f32>,
    unit_errors: Vec<f32>,
    scores: [f32; CLASSES],
}

/// What the model made of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) label: u8,
    pub(super) loss: f32,
}

struct Layers<'a> {
    /// One row of `hidden` weights a pixel: a pixel without ink skips its row.
    pixel_rows: &'a [f32],
    unit_biases: &'a [f32],
    /// One row of ten weights a unit: a silent unit skips its row.
    unit_rows: &'a [f32],
    class_biases: &'a [f32],
}

impl Mlp {
    pub(super) fn parameter_count(self) -> usize {
        (PIXELS + 1) * self.hidden + (self.hidden + 1) * CLASSES
    }

    pub(super) fn scratch(self) -> Scratch {
        Scratch { units: vec![0.0; self.hidden], unit_errors: vec![0.0; self.hidden], scores: [0.0; CLASSES] }
    }

    /// He's uniform initialisation: variance 2 / fan-in, biases 0.
    pub(super) fn first_weights(self, rng: &mut Rng) -> Vec<f32> {
        let mut weights = vec![0.0; self.parameter_count()];
        let (first, rest) = weights.split_at_mut(PIXELS * self.hidden);
        let second = &mut rest[self.hidden..self.hidden + self.hidden * CLASSES];
        for (layer, fan_in) in [(first, PIXELS), (second, self.hidden)] {
            let half_width = (6.0 / fan_in as f32).sqrt();
            layer.iter_mut().for_each(|weight| *weight = rng.symmetric(half_width));
        }
        weights
    }

    /// The model's answer, and how much probability it withheld from `label`.
    pub(super) fn answer(self, weights: &[f32], image: &Image, label: u8, scratch: &mut Scratch) -> Answer {
        let layers = self.layers(weights);
        let Scratch { units, unit_errors: _, scores } = scratch;
        units.copy_from_slice(layers.unit_biases);
        for (pixel, row) in image.iter().zip(layers.pixel_rows.chunks_exact(self.hidden)) {
            if *pixel != 0.0 {
                add_scaled(units, row, *pixel);
            }
        }
        units.iter_mut().for_each(|unit| *unit = unit.max(0.0));
        scores.copy_from_slice(layers.class_biases);
        for (unit, row) in units.iter().zip(layers.unit_rows.chunks_exact(CLASSES)) {
            if *unit != 0.0 {
                add_scaled(scores, row, *unit);
            }
        }
        let best =
            (0..CLASSES).fold(0, |best, class| if scores[class] > scores[best] { class } else { best });
        // Scores become probabilities. Subtracting the highest first keeps `exp` from overflowing.
        let highest = scores[best];
        let label_score = scores[usize::from(label)] - highest;
        let mut sum = 0.0;
        for score in scores.iter_mut() {
            *score = (*score - highest).exp();
            sum += *score;
        }
        scores.iter_mut().for_each(|score| *score /= sum);
        Answer { label: best as u8, loss: sum.ln() - label_score }
    }

    /// Adds one image's gradient to `gradient`.
    pub(super) fn add_gradient(
        self,
        weights: &[f32],
        image: &Image,
        label: u8,
        scratch: &mut Scratch,
        gradient: &mut [f32],
    ) {
        self.answer(weights, image, label, scratch);
        let unit_rows = self.layers(weights).unit_rows;
        let Scratch { units, unit_errors, scores } = scratch;
        scores[usize::from(label)] -= 1.0;
        let class_errors: &[f32; CLASSES] = scores;

        let (pixel_rows, rest) = gradient.split_at_mut(PIXELS * self.hidden);
        let (unit_biases, rest) = rest.split_at_mut(self.hidden);
        let (unit_row_gradients, class_biases) = rest.split_at_mut(self.hidden * CLASSES);
        add_scaled(class_biases, class_errors, 1.0);
        for (index, unit) in units.iter().enumerate() {
            unit_errors[index] = 0.0;
            // A unit that was silent passes no error on: the slope of max(0, x) left of 0.
            if *unit > 0.0 {
                let row = index * CLASSES..(index + 1) * CLASSES;
                add_scaled(&mut unit_row_gradients[row.clone()], class_errors, *unit);
                unit_errors[index] = unit_rows[row].iter().zip(class_errors).map(|(w, e)| w * e).sum();
            }
        }
        add_scaled(unit_biases, unit_errors, 1.0);
        for (pixel, row) in image.iter().zip(pixel_rows.chunks_exact_mut(self.hidden)) {
            if *pixel != 0.0 {
                add_scaled(row, unit_errors, *pixel);
            }
        }
    }

    fn layers(self, weights: &[f32]) -> Layers<'_> {
        let (pixel_rows, rest) = weights.split_at(PIXELS * self.hidden);
        let (unit_biases, rest) = rest.split_at(self.hidden);
        let (unit_rows, class_biases) = rest.split_at(self.hidden * CLASSES);
        Layers { pixel_rows, unit_biases, unit_rows, class_biases }
    }
}

/// `target += source * scale`: the one loop that all the time is spent in.
fn add_scaled(target: &mut [f32], source: &[f32], scale: f32) {
    debug_assert_eq!(target.len(), source.len());
    for (to, from) in target.iter_mut().zip(source) {
        *to += from * scale;
    }
}
