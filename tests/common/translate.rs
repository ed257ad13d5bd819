//! What other machines would make of our kernels: naga's translations to Metal and DirectX, and a list for a browser.
//!
//! wgpu translates to SPIR-V here, so a text that Metal's or DirectX's backend refuses would be found by users only. A
//! browser reads WGSL with a front end of its own, which is stricter than naga's (uniformity for one): kernels of a
//! portable device are written to `target/web/shaders/`, and `scripts/test` has Chromium compile them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use naga::back::{hlsl, msl};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use wengert::gpu::Device;

/// Panics with the text that one of the backends refuses.
fn translate(text: &str) {
    let refused = |by: &str, why: String| -> ! { panic!("{by} refuses a kernel: {why}\n{text}") };
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| refused("naga", e.emit_to_string(text)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).unwrap_or_else(|e| refused("naga", e.emit_to_string(text)));
    let version = msl::Options { lang_version: (2, 4), ..Default::default() };
    if let Err(why) = msl::write_string(&module, &info, &version, &msl::PipelineOptions::default()) {
        refused("Metal", why.to_string());
    }
    let model = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
    let (mut out, pipeline) = (String::new(), hlsl::PipelineOptions::default());
    if let Err(why) = hlsl::Writer::new(&mut out, &model, &pipeline).write(&module, &info, None) {
        refused("DirectX", why.to_string());
    }
}

/// Translates all that was compiled on `device`, once each.
pub fn translate_all(device: &Device, seen: &mut BTreeSet<Arc<str>>) {
    for text in device.shaders() {
        if seen.insert(text.clone()) {
            translate(&text);
        }
    }
}

/// Writes texts where Chromium is shown them.
pub fn for_browser(name: &str, texts: &BTreeSet<Arc<str>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/web/shaders");
    std::fs::create_dir_all(&folder).unwrap();
    // A WGSL text never holds the separator.
    let all = texts.iter().map(|text| &**text).collect::<Vec<_>>().join("\0");
    std::fs::write(folder.join(format!("{name}.txt")), all).unwrap();
}
