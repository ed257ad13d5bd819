//! What each pass of the compiler does to a training step of two layers: the graph as recorded, the program it becomes,
//! which values share a kernel, the order of dispatches, where everything lies, and the first kernel's WGSL.
//!
//!     cargo run --release --example explain                    all passes
//!     cargo run --release --example explain -- fuse schedule   some of them
//!     cargo run --release --example explain -- plan            the plan with slots and memory
//!     cargo run --release --example explain -- profile         the time of each dispatch, and a trace for Perfetto
//!
//! Always writes target/explain/graph.svg, and target/explain/trace.json with `profile`.

use wengert::prelude::*;
use wengert::random::threefry;

/// Parameters, and for each the means of its gradient and of the gradient's square.
pub type State = (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>);

/// Two layers, the mean squared error, and Adam without the correction of its first steps.
pub fn train_step((weights, means, squares): State, (x, y): &(Tensor, Tensor)) -> Result<(Logs, State)> {
    let loss = |weights: &[Tensor]| {
        let [w1, b1, w2, b2] = weights else { return Err(Error::argument("four weights")) };
        let hidden = (x.matmul(w1) + b1).relu();
        let error = hidden.matmul(w2) + b2 - y;
        Ok((error.square().mean(..), ()))
    };
    let ((loss, ()), gradients) = value_and_grad(|weights| loss(weights), &weights)?;
    let means: Vec<Tensor> = means.iter().zip(&gradients).map(|(m, g)| m * 0.9 + g * 0.1).collect();
    let squares: Vec<Tensor> = squares.iter().zip(&gradients).map(|(v, g)| v * 0.999 + g.square() * 0.001).collect();
    let step = |((w, m), v): ((&Tensor, &Tensor), &Tensor)| w - m * 0.001 / (v.sqrt() + 1e-7);
    let weights = weights.iter().zip(&means).zip(&squares).map(step).collect();
    Ok((Logs::from([("loss", loss)]), (weights, means, squares)))
}

fn uniform(seed: u32, shape: &[usize]) -> Tensor {
    Tensor::new(&threefry::uniform([0, seed], shape.iter().product(), -0.1, 0.1), shape)
}

/// A state and a batch to begin with, and what the leaves of the state are called.
pub fn start() -> (State, (Tensor, Tensor), Vec<String>) {
    let shapes: [&[usize]; 4] = [&[96, 128], &[128], &[128, 64], &[64]];
    let weights = (1..).zip(shapes).map(|(seed, shape)| uniform(seed, shape)).collect();
    let zeros = || shapes.iter().map(|shape| Tensor::zeros(*shape)).collect();
    let names = ["", "m_", "v_"].iter().flat_map(|of| ["w1", "b1", "w2", "b2"].map(|name| format!("{of}{name}")));
    ((weights, zeros(), zeros()), (uniform(5, &[128, 96]), uniform(6, &[128, 64])), names.collect())
}

async fn run() -> Result<()> {
    let device = Device::new().await?;
    let (mut state, batch, names) = start();
    let mut step = Step::new(&device).named(names);

    let explanation = step.explain(&mut state, &batch, train_step)?;
    let plan = step.plan_for(&mut state, &batch, train_step)?;
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if asked.is_empty() {
        say(&explanation.to_string());
    }
    for name in &asked {
        match name.as_str() {
            "plan" => say(&format!("{plan:#}")),
            "profile" => {
                step.run(&mut state, &batch, train_step)?;
                let profile = step.profile(&mut state, &batch, train_step).await?;
                say(&profile.to_string());
                wengert::io::write("target/explain/trace.json", profile.trace().as_bytes())?;
            }
            _ => say(explanation.pass(name).unwrap_or("passes: graph program fuse pack schedule place kernel")),
        }
    }
    wengert::io::write("target/explain/graph.svg", plan.svg("A training step of two layers").as_bytes())
}

fn main() {
    env_logger::init();
    wengert::main(run())
}
