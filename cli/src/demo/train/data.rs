//! The digits: 1797 real images of handwritten digits, and the distortions that make reading them hard.
//!
//! As they are, the images are centred and clean, and every sensible setting reads 95 % of them after half a
//! second. A demo in which all trials look alike shows nothing, so each image is seen through a small random
//! shift, a random affine map and pixel noise: the task of a reader that gets its digits from a crooked scan.
//! Training images are distorted anew each time that they are shown; the held-out images are distorted once,
//! in the same way for every trial, so that the accuracies of two trials can be compared.

use super::rng::Rng;

pub(super) const PIXELS: usize = 64;
pub(super) const CLASSES: usize = 10;
const SIDE: usize = 8;

/// One image, row by row, 0.0 (paper) to 1.0 (ink), before noise.
pub(super) type Image = [f32; PIXELS];

#[derive(Debug, Clone)]
pub(super) struct Digit {
    pub(super) image: Image,
    pub(super) label: u8,
}

/// What a distorted image went through. All fields are half widths of uniform draws.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distortion {
    /// In pixels, each direction.
    pub(super) shift: f32,
    /// Added to each entry of the 2x2 identity map: rotation, scale and shear in one.
    pub(super) warp: f32,
    /// Added to each pixel.
    pub(super) noise: f32,
}

impl Distortion {
    /// What the demo trains on; see the module's documentation for why.
    pub(super) const CROOKED_SCAN: Self = Self { shift: 1.0, warp: 0.15, noise: 0.15 };

    /// The images as they are in the file.
    #[cfg(test)]
    pub(super) const NONE: Self = Self { shift: 0.0, warp: 0.0, noise: 0.0 };

    /// Fills `target` with a distorted `source`. Draws the same count of numbers whatever the half widths.
    pub(super) fn apply(&self, source: &Image, rng: &mut Rng, target: &mut Image) {
        const CENTRE: f32 = (SIDE as f32 - 1.0) / 2.0;
        let [shift_row, shift_column] = rng.symmetric_pair(self.shift);
        let [row_by_row, row_by_column] = rng.symmetric_pair(self.warp);
        let [column_by_row, column_by_column] = rng.symmetric_pair(self.warp);
        for row in 0..SIDE {
            let r = row as f32 - CENTRE;
            for column in 0..SIDE {
                let c = column as f32 - CENTRE;
                let from_row = r + r * row_by_row + c * row_by_column + shift_row + CENTRE;
                let from_column = c + r * column_by_row + c * column_by_column + shift_column + CENTRE;
                target[row * SIDE + column] = between_pixels(source, from_row, from_column);
            }
        }
        for pair in target.chunks_exact_mut(2) {
            let [first, second] = rng.symmetric_pair(self.noise);
            pair[0] += first;
            pair[1] += second;
        }
    }
}

/// The data set, split: what the trainer may learn from and what it is measured on.
#[derive(Debug)]
pub(super) struct Digits {
    pub(super) training: Vec<Digit>,
    /// Already distorted, each image [`HELD_OUT_VIEWS`] times.
    pub(super) held_out: Vec<Digit>,
    pub(super) distortion: Distortion,
}

/// The end of the file, about a fifth. Its labels repeat one form of about 128 digits fourteen times, so it
/// keeps the order in which people filled in their forms; the last three forms begin at image 1415. Held out
/// whole, they measure the reading of new hands, and not how well known hands are recalled.
const HELD_OUT_IMAGES: usize = 1797 - 1415;

/// Several views of each held-out image: 1528 answers resolve 0.1 % where 382 resolve 0.3 %.
const HELD_OUT_VIEWS: usize = 4;

/// Fixed for all trials: see the module's documentation.
const HELD_OUT_SEED: u64 = 1998;

impl Digits {
    pub(super) fn load(distortion: Distortion) -> Self {
        let mut training = parse(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits.txt")));
        let clean = training.split_off(training.len() - HELD_OUT_IMAGES);
        let mut rng = Rng::from_state(HELD_OUT_SEED);
        let mut held_out = Vec::with_capacity(clean.len() * HELD_OUT_VIEWS);
        for digit in &clean {
            for _ in 0..HELD_OUT_VIEWS {
                let mut view = digit.clone();
                distortion.apply(&digit.image, &mut rng, &mut view.image);
                held_out.push(view);
            }
        }
        Self { training, held_out, distortion }
    }
}

/// The image's value at a place that need not be a pixel's centre (bilinear; paper outside the image).
fn between_pixels(image: &Image, row: f32, column: f32) -> f32 {
    let (top, left) = (row.floor(), column.floor());
    let (down, right) = (row - top, column - left);
    let (top, left) = (top as i32, left as i32);
    let at = |row: i32, column: i32| {
        let inside = (0..SIDE as i32).contains(&row) && (0..SIDE as i32).contains(&column);
        if inside { image[row as usize * SIDE + column as usize] } else { 0.0 }
    };
    let upper = at(top, left) * (1.0 - right) + at(top, left + 1) * right;
    let lower = at(top + 1, left) * (1.0 - right) + at(top + 1, left + 1) * right;
    upper * (1.0 - down) + lower * down
}

/// One line an image: the label, a space, one base-17 digit a pixel (`data/README.md`). The file is part of
/// the program, so a line that cannot be read is a bug of ours and not an error of the user's.
fn parse(text: &str) -> Vec<Digit> {
    const INK_MAX: f32 = 16.0;
    let digit_of = |line: &str| {
        let (label, pixels) = line.split_once(' ')?;
        let mut image = [0.0; PIXELS];
        if pixels.len() != PIXELS {
            return None;
        }
        for (value, symbol) in image.iter_mut().zip(pixels.chars()) {
            *value = symbol.to_digit(17)? as f32 / INK_MAX;
        }
        Some(Digit { image, label: label.parse().ok().filter(|label| usize::from(*label) < CLASSES)? })
    };
    text.lines().map(|line| digit_of(line).expect("data/digits.txt is as its README says")).collect()
}
