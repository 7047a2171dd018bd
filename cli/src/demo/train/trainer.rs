//! Training by steps: the part that knows no clock and no file, so that it can be tested by equality.

use super::data::{Digits, Image, PIXELS};
use super::mlp::{Mlp, Scratch};
use super::rng::Rng;

/// Images a step.
const BATCH: usize = 64;

/// What a step keeps of the one before it.
const MOMENTUM: f32 = 0.9;

/// What distinguishes one trial from another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    pub(super) lr: f32,
    pub(super) hidden: usize,
    pub(super) seed: u64,
}

impl Settings {
    pub(super) fn parameter_count(self) -> usize {
        Mlp { hidden: self.hidden }.parameter_count()
    }
}

/// All that a trainer must remember to go on as if nothing had happened. The position in the epoch follows
/// from `step`, and the order of the images from the seed and the epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) step: u64,
    pub(super) rng: u64,
    pub(super) weights: Vec<f32>,
    pub(super) momentum: Vec<f32>,
}

/// The model measured on the held-out images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) correct: u32,
    pub(super) accuracy: f64,
    pub(super) loss: f64,
}

pub(super) struct Trainer {
    settings: Settings,
    digits: Digits,
    mlp: Mlp,
    step: u64,
    rng: Rng,
    weights: Vec<f32>,
    momentum: Vec<f32>,
    // What follows is rebuilt, not remembered.
    gradient: Vec<f32>,
    scratch: Scratch,
    order: Vec<usize>,
    order_epoch: Option<u64>,
}

impl Trainer {
    pub(super) fn new(settings: Settings, digits: Digits) -> Self {
        let mlp = Mlp { hidden: settings.hidden };
        let mut rng = Rng::stream(settings.seed, purpose::WEIGHTS);
        let weights = mlp.first_weights(&mut rng);
        Self {
            settings,
            digits,
            mlp,
            step: 0,
            rng: Rng::stream(settings.seed, purpose::DISTORTION),
            momentum: vec![0.0; weights.len()],
            gradient: vec![0.0; weights.len()],
            scratch: mlp.scratch(),
            weights,
            order: Vec::new(),
            order_epoch: None,
        }
    }

    pub(super) fn state(&self) -> State {
        State {
            step: self.step,
            rng: self.rng.state(),
            weights: self.weights.clone(),
            momentum: self.momentum.clone(),
        }
    }

    /// Goes on from a state of a trainer with the same settings.
    pub(super) fn restore(&mut self, state: State) {
        let State { step, rng, weights, momentum } = state;
        assert_eq!(
            weights.len(),
            self.mlp.parameter_count(),
            "the checkpoint was checked against the settings"
        );
        assert_eq!(momentum.len(), weights.len(), "the checkpoint was checked against the settings");
        (self.step, self.rng, self.weights, self.momentum) = (step, Rng::from_state(rng), weights, momentum);
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) fn steps_done(&self) -> u64 {
        self.step
    }

    pub(super) fn epochs_done(&self) -> u64 {
        self.step / self.steps_per_epoch()
    }

    /// Shows the model one batch and moves its weights.
    pub(super) fn step(&mut self) {
        self.order_images();
        let start = (self.step % self.steps_per_epoch()) as usize * BATCH;
        self.gradient.fill(0.0);
        let mut image: Image = [0.0; PIXELS];
        for index in &self.order[start..start + BATCH] {
            let digit = &self.digits.training[*index];
            self.digits.distortion.apply(&digit.image, &mut self.rng, &mut image);
            self.mlp.add_gradient(&self.weights, &image, digit.label, &mut self.scratch, &mut self.gradient);
        }
        self.descend();
        self.step += 1;
    }

    pub(super) fn measure(&mut self) -> Score {
        let (mut correct, mut loss) = (0, 0.0);
        for digit in &self.digits.held_out {
            let answer = self.mlp.answer(&self.weights, &digit.image, digit.label, &mut self.scratch);
            correct += u32::from(answer.label == digit.label);
            loss += f64::from(answer.loss);
        }
        let count = self.digits.held_out.len() as f64;
        Score { correct, accuracy: f64::from(correct) / count, loss: loss / count }
    }

    /// The accuracy that `correct` answers of a [`Score`] stand for.
    pub(super) fn accuracy(&self, correct: u32) -> f64 {
        f64::from(correct) / self.digits.held_out.len() as f64
    }

    /// The remainder of a batch is left out of its epoch; as each epoch has its own order, no image is always it.
    fn steps_per_epoch(&self) -> u64 {
        (self.digits.training.len() / BATCH) as u64
    }

    /// The order of an epoch is a function of the seed and the epoch alone, so that no checkpoint need hold it.
    fn order_images(&mut self) {
        let epoch = self.epochs_done();
        if self.order_epoch == Some(epoch) {
            return;
        }
        self.order.clear();
        self.order.extend(0..self.digits.training.len());
        Rng::stream(self.settings.seed, purpose::FIRST_EPOCH + epoch).shuffle(&mut self.order);
        self.order_epoch = Some(epoch);
    }

    fn descend(&mut self) {
        // The gradient is a sum over the batch; the learning rate is meant for the mean.
        let rate = self.settings.lr / BATCH as f32;
        for ((weight, speed), slope) in self.weights.iter_mut().zip(&mut self.momentum).zip(&self.gradient) {
            *speed = MOMENTUM * *speed - rate * slope;
            *weight += *speed;
        }
    }
}

/// Which stream of random numbers a draw belongs to; see [`Rng::stream`].
mod purpose {
    pub(super) const WEIGHTS: u64 = 0;
    pub(super) const DISTORTION: u64 = 1;
    pub(super) const FIRST_EPOCH: u64 = 2;
}

#[cfg(test)]
mod tests;
