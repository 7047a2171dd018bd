use super::super::data::{CLASSES, Distortion};
use super::*;

/// The undistorted images: a task that a few hundred steps master, which is what a debug build has time for.
fn trainer(lr: f32, hidden: usize, seed: u64, distortion: Distortion) -> Trainer {
    Trainer::new(Settings { lr, hidden, seed }, Digits::load(distortion))
}

fn after(steps: u64, mut trainer: Trainer) -> Trainer {
    (0..steps).for_each(|_| trainer.step());
    trainer
}

#[test]
fn a_good_learning_rate_reads_nine_of_ten_unseen_digits() {
    let score = after(400, trainer(0.05, 32, 1, Distortion::NONE)).measure();
    assert!(score.accuracy > 0.9, "{score:?}");
}

#[test]
fn a_tiny_learning_rate_learns_less_in_the_same_steps() {
    let good = after(120, trainer(0.05, 32, 1, Distortion::NONE)).measure();
    let tiny = after(120, trainer(0.0005, 32, 1, Distortion::NONE)).measure();
    assert!(tiny.accuracy + 0.2 < good.accuracy, "{tiny:?} {good:?}");
    assert!(tiny.loss > good.loss, "{tiny:?} {good:?}");
}

#[test]
fn a_far_too_large_learning_rate_makes_a_bad_model_but_no_infinities() {
    let mut trainer = after(60, trainer(100.0, 16, 1, Distortion::CROOKED_SCAN));
    let score = trainer.measure();
    assert!(score.accuracy < 0.5 && score.loss.is_finite(), "{score:?}");
    assert!(trainer.state().weights.iter().all(|weight| weight.is_finite()));
}

#[test]
fn the_same_seed_gives_the_same_weights_and_another_seed_gives_others() {
    let state = |seed| after(30, trainer(0.05, 8, seed, Distortion::CROOKED_SCAN)).state();
    assert_eq!(state(7), state(7));
    assert_ne!(state(7).weights, state(8).weights);
}

#[test]
fn a_restored_trainer_goes_on_as_if_it_had_never_stopped() {
    let fresh = || trainer(0.05, 8, 7, Distortion::CROOKED_SCAN);
    let whole = after(60, fresh());
    // One stop in the middle of an epoch and one at its edge: 22 steps are an epoch.
    for stop in [13, 22, 44] {
        let mut resumed = fresh();
        resumed.restore(after(stop, fresh()).state());
        let resumed = after(60 - stop, resumed);
        assert!(resumed.state() == whole.state(), "stopped at step {stop}");
    }
}

#[test]
fn an_epoch_shows_each_image_at_most_once_and_the_next_in_another_order() {
    let mut trainer = trainer(0.05, 8, 1, Distortion::NONE);
    trainer.order_images();
    let first = trainer.order.clone();
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..trainer.digits.training.len()).collect::<Vec<_>>());
    trainer.step = trainer.steps_per_epoch();
    trainer.order_images();
    assert_ne!(trainer.order, first);
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    const NUDGE: f32 = 1.0 / 256.0;
    let mlp = Mlp { hidden: 5 };
    let mut rng = Rng::from_state(3);
    let weights = mlp.first_weights(&mut rng);
    let digits = Digits::load(Distortion::NONE);
    let mut scratch = mlp.scratch();
    for digit in &digits.training[..CLASSES] {
        let mut gradient = vec![0.0; weights.len()];
        mlp.add_gradient(&weights, &digit.image, digit.label, &mut scratch, &mut gradient);
        for (index, slope) in gradient.iter().enumerate() {
            let mut loss_at = |nudge: f32| {
                let mut nudged = weights.clone();
                nudged[index] += nudge;
                mlp.answer(&nudged, &digit.image, digit.label, &mut scratch).loss
            };
            let measured = (loss_at(NUDGE) - loss_at(-NUDGE)) / (2.0 * NUDGE);
            assert!((measured - slope).abs() < 0.01, "parameter {index}: {slope}, measured {measured}");
        }
    }
}
