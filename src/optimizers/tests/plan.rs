//! How many dispatches an update takes: one for all parameters, whatever the rule and the options.

use super::*;
use crate::gpu::Device;
use crate::grad::value_and_grad;
use crate::layers::{Dense, Mode, Network, Sequential};
use crate::plan::Plan;
use crate::step::{Logs, Step};

/// Layers whose kernels, and none of whose biases, are too large for one workgroup.
fn network(hidden: usize) -> Network {
    let layers = (0..hidden).map(|index| Dense::new(96 + 4 * index).activation("relu"));
    layers.fold(Sequential::new([96]), Sequential::add).add(Dense::new(64)).network().unwrap()
}

/// The plan of a training step; without an optimizer, of one that leaves the gradients in the state.
fn plan(device: &Device, network: &Network, optimizer: Option<Optimizer>) -> Plan {
    let (trainable, _) = network.init(1).unwrap();
    let names = network.variables().iter().map(|variable| variable.name.as_str());
    let optimizer = optimizer.map(|optimizer| optimizer.for_parameters(names));
    let variables = optimizer.as_ref().map(|optimizer| optimizer.variables(&trainable).unwrap()).unwrap_or_default();
    let mut step = Step::new(device);
    step.run(&mut (trainable, variables), &Tensor::ones([32, 96]), |(trainable, variables): (Vec<_>, Vec<_>), x| {
        let ((loss, ()), grads) = value_and_grad(
            |trainable| {
                let (outputs, _) = network.call(trainable, &[], std::slice::from_ref(x), Mode::Train)?;
                Ok((outputs[0].square().mean(..), ()))
            },
            &trainable,
        )?;
        let state = match &optimizer {
            Some(optimizer) => optimizer.stateless_apply(&variables, &grads, &trainable)?,
            None => (grads, variables),
        };
        Ok((Logs::from([("loss", loss)]), state))
    })
    .unwrap();
    step.plan().unwrap().clone()
}

/// All rules, each with as many slots as it can have.
fn rules() -> [Optimizer; 9] {
    [
        SGD { momentum: 0.9, nesterov: true, ..SGD::default() }.into(),
        RMSprop { momentum: 0.9, centered: true, ..RMSprop::default() }.into(),
        Adam { amsgrad: true, ..Adam::default() }.into(),
        AdamW::default().into(),
        Adagrad::default().into(),
        Adadelta::default().into(),
        Adamax::default().into(),
        Nadam::default().into(),
        Lion::default().into(),
    ]
}

/// Everything that does not ask for norms.
fn with_all_options(optimizer: Optimizer) -> Optimizer {
    optimizer
        .learning_rate(schedules::CosineDecayRestarts::new(0.1, 10))
        .clip(Clip::Value(0.5))
        .weight_decay(0.1)
        .gradient_accumulation_steps(4)
        .ema(Ema { momentum: 0.9, overwrite_frequency: Some(4) })
}

#[test]
fn an_update_is_one_dispatch_for_every_rule_and_option() {
    let (device, network) = (Device::blocking().unwrap(), network(2));
    let gradients = plan(&device, &network, None).dispatches();
    for rule in rules() {
        for optimizer in [rule.clone(), with_all_options(rule)] {
            let plan = plan(&device, &network, Some(optimizer.clone()));
            assert_eq!((plan.dispatches(), plan.copies), (gradients + 1, 0), "{optimizer:?}\n{plan}");
        }
    }
    // Without slots a descent needs none: it happens where the gradients are computed.
    let plan = plan(&device, &network, Some(SGD::default().into()));
    assert_eq!((plan.dispatches(), plan.copies), (gradients, 0), "{plan}");
}

#[test]
fn an_update_of_many_parameters_is_one_dispatch() {
    let (device, network) = (Device::blocking().unwrap(), network(12));
    let gradients = plan(&device, &network, None).dispatches();
    for rule in [rules()[1].clone(), rules()[2].clone()] {
        for optimizer in [rule.clone(), with_all_options(rule)] {
            let plan = plan(&device, &network, Some(optimizer.clone()));
            assert_eq!((plan.dispatches(), plan.copies), (gradients + 1, 0), "{optimizer:?}\n{plan}");
        }
    }
}

#[test]
fn norms_take_a_sum_for_each_large_gradient() {
    let (device, network) = (Device::blocking().unwrap(), network(2));
    let gradients = plan(&device, &network, None).dispatches();
    let of = |optimizer: Optimizer| plan(&device, &network, Some(optimizer));
    let adam = || Optimizer::from(Adam::default());
    // Three kernels, each with a sum; one dispatch for all that is small, one for the update.
    for optimizer in [adam(), adam().gradient_accumulation_steps(4).ema(Ema::default()).weight_decay(0.1)] {
        let plan = of(optimizer.clip(Clip::GlobalNorm(1.0)));
        assert_eq!((plan.dispatches(), plan.copies), (gradients + 5, 0), "{plan}");
    }
    // A factor for each parameter, so an update for each kernel at most; middling ones share a dispatch.
    let plan = of(adam().clip(Clip::Norm(1.0)));
    assert!(plan.dispatches() <= gradients + 7 && plan.copies == 0, "{plan}");
}

#[test]
fn biases_that_do_not_decay_are_updated_beside_the_kernels() {
    let (device, network) = (Device::blocking().unwrap(), network(2));
    let gradients = plan(&device, &network, None).dispatches();
    let plan = plan(&device, &network, Some(Optimizer::from(AdamW::default()).exclude_from_weight_decay(&["bias"])));
    assert_eq!((plan.dispatches(), plan.copies), (gradients + 1, 0), "{plan}");
}
