//! Two networks, two optimizers, one step: a generative adversarial network on points of a ring.

use crate::{base, bits, silent, unseen};
use wengert::optimizers::ITERATION;
use wengert::prelude::*;

pub struct Gan {
    pub generator: Functional,
    discriminator: Functional,
    d_loss: Metric,
    g_loss: Metric,
}

/// How sure a logit is of the truth: `log(1 + exp(-logit))`.
fn surprise(logits: &Tensor) -> Tensor {
    ((-logits.abs()).exp() + 1.0).log() + (-logits).relu()
}

impl Model for Gan {
    base!(generator);

    fn networks(&self) -> Vec<&Functional> {
        vec![&self.generator, &self.discriminator]
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![self.d_loss.clone(), self.g_loss.clone()]
    }

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let ([g, d], metrics) = self.split(state)?;
        let real = batch.x()?;

        // Noise of this step's own, from the count of steps that the optimizer keeps.
        let key = random::fold_in(&random::key(1), &g.optimizer[ITERATION]);
        let noise = random::uniform(&key, [real.dim(0), 2]) * 2.0 - 1.0;

        // The discriminator learns to tell real from generated.
        let (fake, _) = self.generator.stateless_call(&g.trainable, &g.non_trainable, &noise, Mode::Train)?;
        let ((d_loss, updates), grads) = value_and_grad(
            |tv| {
                let judge = |states: &[Tensor], x| self.discriminator.stateless_call(tv, states, x, Mode::Train);
                let (on_real, states) = judge(&d.non_trainable, &real)?;
                let (on_fake, states) = judge(&states, &fake)?;
                Ok((surprise(&on_real).mean(..) + surprise(&-&on_fake).mean(..), states))
            },
            &d.trainable,
        )?;
        let d = d.update(self.discriminator.optimizer(), &grads, updates)?;

        // The generator learns to mislead the discriminator of now.
        let ((g_loss, updates), grads) = value_and_grad(
            |tv| {
                let (fake, states) = self.generator.stateless_call(tv, &g.non_trainable, &noise, Mode::Train)?;
                let (judged, _) =
                    self.discriminator.stateless_call(&d.trainable, &d.non_trainable, &fake, Mode::Infer)?;
                Ok((surprise(&judged).mean(..), states))
            },
            &g.trainable,
        )?;
        let g = g.update(self.generator.optimizer(), &grads, updates)?;

        let d_vars = self.d_loss.stateless_update_state(&metrics[0], Observed::value(&d_loss));
        let g_vars = self.g_loss.stateless_update_state(&metrics[1], Observed::value(&g_loss));
        let logs = Logs::from([
            ("d_loss", self.d_loss.stateless_result(&d_vars)),
            ("g_loss", self.g_loss.stateless_result(&g_vars)),
        ]);
        Ok((logs, NetworkState::join([g, d], vec![d_vars, g_vars])))
    }
}

pub fn gan() -> Gan {
    let network = |seed: u64, dropout: f64, outputs: usize| {
        Sequential::new([2])
            .add(Dense::new(16).activation("tanh"))
            .add(Dropout::new(dropout))
            .add(Dense::new(outputs))
            .build()
            .and_then(|network| network.seed(seed))
            .unwrap()
    };
    let mut gan = Gan {
        generator: network(1, 0.0, 2),
        discriminator: network(2, 0.25, 1),
        d_loss: Metric::from(Mean).named("d_loss"),
        g_loss: Metric::from(Mean).named("g_loss"),
    };
    // Each network has an optimizer of its own.
    let adam =
        |learning_rate| Compile { optimizer: Adam { learning_rate, ..Adam::default() }.into(), ..Compile::default() };
    gan.generator.compile(adam(0.002)).unwrap();
    gan.discriminator.compile(adam(0.01)).unwrap();
    gan
}

pub fn ring(rows: usize) -> Tensor {
    let angles = (0..rows).map(|i| i as f32 * 0.37);
    Tensor::new(&angles.flat_map(|a| [2.0 * a.cos(), 2.0 * a.sin()]).collect::<Vec<f32>>(), [rows, 2])
}

#[test]
fn both_networks_train_in_one_step() {
    let (mut model, real) = (gan(), ring(200));
    let start = (bits(&model.generator), bits(&model.discriminator));
    let history = model.fit_blocking(&real, Fit { epochs: 15, ..silent() }).unwrap();
    let names: Vec<&str> = history.history.iter().map(|entry| entry.0.as_str()).collect();
    assert_eq!(names, ["d_loss", "g_loss"]);
    // At first the two clouds are told apart ever better, which costs the generator.
    let (d, g) = (history.get("d_loss").unwrap(), history.get("g_loss").unwrap());
    assert!(d[14] < 0.8 * d[0], "{d:?}");
    assert!(d.iter().chain(g).all(|loss| loss.is_finite()));
    let end = (bits(&model.generator), bits(&model.discriminator));
    assert!(start.0 != end.0 && start.1 != end.1);
    let mut again = gan();
    again.fit_blocking(&real, Fit { epochs: 15, ..silent() }).unwrap();
    assert!(end == (bits(&again.generator), bits(&again.discriminator)));
    // It generates like any model.
    let generated = model.predict_blocking(ring(5), unseen()).unwrap();
    assert_eq!(generated.shape(), [5, 2].into());
}

#[test]
fn each_optimizer_has_a_rate_of_its_own() {
    struct Freeze;
    impl Callback for Freeze {
        fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
            Box::pin(async move {
                let [generator, discriminator] = run.networks() else { panic!("two networks") };
                assert!((generator.learning_rate().await? - 0.002).abs() < 1e-6);
                if run.epoch == 1 {
                    discriminator.set_learning_rate(0.0).await?;
                }
                Ok(())
            })
        }
    }
    let (mut model, mut shorter) = (gan(), gan());
    model.fit_blocking(ring(64), Fit { epochs: 3, callbacks: vec![&mut Freeze], ..silent() }).unwrap();
    shorter.fit_blocking(ring(64), silent()).unwrap();
    let weights = |network: &Functional| -> Vec<f32> {
        let device = pollster::block_on(network.device()).unwrap();
        network.trainable().unwrap().iter().flat_map(|t| t.to_vec_on::<f32>(&device).unwrap()).collect()
    };
    assert_eq!(weights(&model.discriminator), weights(&shorter.discriminator));
    assert_ne!(weights(&model.generator), weights(&shorter.generator));
}

#[test]
fn a_step_is_one_submission_for_both() {
    let mut model = gan();
    let device = pollster::block_on(model.generator.device()).unwrap();
    let mut stats = Vec::new();
    // Running ahead would make the upload ring grow to what is in flight.
    let mut see = LambdaCallback::new().on_batch_end(|_| {
        device.wait_blocking().unwrap();
        stats.push(device.stats());
    });
    let options = Fit { batch_size: 8, callbacks: vec![&mut see], ..silent() };
    model.fit_blocking(ring(64), options).unwrap();
    drop(see);
    for pair in stats[2..].windows(2) {
        let step = pair[1] - pair[0];
        assert_eq!((step.submissions, step.buffers, step.bind_groups, step.pipelines), (1, 0, 0, 0), "{step}");
    }
}

#[test]
fn a_state_is_split_by_the_networks_there_are() {
    let mut model = gan();
    struct Three(Gan);
    impl Model for Three {
        fn base(&self) -> &Functional {
            &self.0.generator
        }
        fn base_mut(&mut self) -> &mut Functional {
            &mut self.0.generator
        }
        fn networks(&self) -> Vec<&Functional> {
            self.0.networks()
        }
        fn train_step(&self, state: TrainState, _: Batch) -> Result<(Logs, TrainState)> {
            let ([a, b, c], metrics) = self.split(state)?;
            Ok((Logs::default(), NetworkState::join([a, b, c], metrics)))
        }
    }
    let error = Three(gan()).fit_blocking(ring(8), silent()).unwrap_err().to_string();
    assert!(error.contains("2 networks") && error.contains('3'), "{error}");
    // Networks that worked on devices of their own cannot become one model.
    let mut apart = gan();
    apart.generator.predict_blocking(ring(8), unseen()).unwrap();
    apart.discriminator.predict_blocking(ring(8), unseen()).unwrap();
    assert!(
        matches!(apart.fit_blocking(ring(8), silent()), Err(error) if matches!(error.kind(), ErrorKind::Device { .. }))
    );
    // A network without an optimizer is named by what it needs.
    model.discriminator = Sequential::new([2]).add(Dense::new(1)).build().unwrap();
    assert!(
        matches!(model.fit_blocking(ring(8), silent()), Err(error) if matches!(error.kind(), ErrorKind::NotCompiled { .. }))
    );
}
