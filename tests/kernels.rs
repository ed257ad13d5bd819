//! Every kernel of the bench table, in every variant, at sizes that are odd, one or nothing, and over views, against f64.
//!
//! The table is that of `benches/common`, so nothing is timed that is not swept here. Deliberately absent: the large sizes,
//! which the tool checks before it times them.

#[path = "../benches/common/mod.rs"]
mod common;

use common::cases::{self, Case};
use common::measure::{Running, VARIANTS, Variant};
use common::report::{HEAD, Row, roofline};

fn swept(variant: &Variant) {
    pollster::block_on(async {
        let device = variant.device().await.unwrap();
        let mut failures = Vec::new();
        for case in &cases::sweep().unwrap() {
            let checked = async { Running::new(&device, variant, case).await?.check().await };
            if let Err(error) = checked.await {
                failures.push(format!("{}: {error}", case.name));
            }
        }
        assert!(failures.is_empty(), "{}:\n{}", variant.name, failures.join("\n"));
    });
}

#[test]
fn the_default_is_right_at_every_size() {
    swept(&VARIANTS[0]);
}

#[test]
fn what_browsers_get_is_right_at_every_size() {
    swept(&VARIANTS[1]);
}

#[test]
fn one_slab_of_temporaries_is_right_at_every_size() {
    swept(&VARIANTS[2]);
}

#[test]
fn single_ops_are_right_at_every_size() {
    swept(&VARIANTS[3]);
}

#[test]
fn a_wrong_result_is_seen() {
    let mut case: Case = (cases::timed().into_iter().find(|(name, _)| *name == "matmul_32x32x1"))
        .map(|(name, make)| make(name).unwrap())
        .unwrap();
    let right = case.apply;
    case.apply = Box::new(move |state, inputs| {
        let mut results = right(state, inputs)?;
        results[0] = &results[0] * 1.001;
        Ok(results)
    });
    pollster::block_on(async {
        let device = VARIANTS[0].device().await.unwrap();
        let checked = Running::new(&device, &VARIANTS[0], &case).await.unwrap().check().await;
        assert!(checked.is_err(), "an error of a thousandth passed");
    });
}

#[test]
fn figures_are_written_for_people_and_programs() {
    pollster::block_on(async {
        let device = VARIANTS[0].device().await.unwrap();
        let ceilings = device.ceilings().await.unwrap();
        let mut rows = Vec::new();
        for (name, make) in cases::timed().into_iter().filter(|(name, _)| ["matmul_32x32x1"].contains(name)) {
            let case = make(name).unwrap();
            let mut running = Running::new(&device, &VARIANTS[0], &case).await.unwrap();
            let error = running.check().await.unwrap();
            let timing = running.time(0.02).await.unwrap();
            assert!(timing.n >= 10 && timing.wall > 0.0, "{timing:?}");
            // Runs of a plan of one workgroup share a dispatch.
            assert!(timing.dispatches > 0.0 && timing.dispatches <= 1.0, "{timing:?}");
            assert_eq!(timing.flops, 2 * 32 * 32);
            rows.push(Row::new(&case, VARIANTS[0].name, timing, error, ceilings));
        }
        let (line, json) = (rows[0].line(), rows[0].json());
        assert!(line.starts_with("matmul_32x32x1") && line.len() >= HEAD.len() - 2, "{line}");
        for key in ["case", "ms_median", "ms_gpu", "n", "gflops", "gbps", "dispatches", "submits"] {
            assert_eq!(json.matches(&format!("\"{key}\":")).count(), 1, "{key} in {json}");
        }
        assert!(!json.contains("NaN") && !json.contains("inf") && !json.contains('\n'), "{json}");
        let svg = roofline(&rows, "a <device>");
        assert!(svg.contains("a &lt;device>") && svg.contains("matmul_32x32x1") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    });
}
