//! Which GPUs are there? Prints every adapter that wgpu can see and the one it picks. `WENGERT_ADAPTER` names another to Wengert: by its
//! number, or by a part of its line behind that.
//!
//!     cargo run --example adapter
//!
//! It talks to wgpu alone, so it tells a missing driver from a fault of ours; in a browser it is the smallest page that
//! proves the chain Rust -> wasm -> WebGPU (`cargo run -p xtask -- web adapter`).

async fn report() -> Result<String, String> {
    let backends = if cfg!(target_arch = "wasm32") { wgpu::Backends::BROWSER_WEBGPU } else { wgpu::Backends::PRIMARY };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });

    // A browser hands out one adapter at a time and lists none.
    #[cfg(not(target_arch = "wasm32"))]
    for (number, adapter) in instance.enumerate_adapters(backends).await.iter().enumerate() {
        say(&format!("found  {number}: {}", describe(adapter)));
    }

    let options =
        wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    let adapter = instance.request_adapter(&options).await.map_err(|error| error.to_string())?;
    let limits = adapter.limits();
    say(&format!(
        "limits {} MB per binding, {} storage buffers per stage, {} B of workgroup memory, {} invocations per workgroup",
        limits.max_storage_buffer_binding_size >> 20,
        limits.max_storage_buffers_per_shader_stage,
        limits.max_compute_workgroup_storage_size,
        limits.max_compute_invocations_per_workgroup,
    ));
    adapter.request_device(&wgpu::DeviceDescriptor::default()).await.map_err(|error| error.to_string())?;
    Ok(describe(&adapter))
}

fn describe(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    // Browsers may hide the name.
    let name = if info.name.is_empty() { "unnamed" } else { &info.name };
    let driver = format!("{} {}", info.driver, info.driver_info);
    format!("{name} [{:?}, {:?}, {}]", info.backend, info.device_type, driver.trim()).trim_end().to_string()
}

fn say(line: &str) {
    #[cfg(not(target_arch = "wasm32"))]
    println!("{line}");
    #[cfg(target_arch = "wasm32")]
    web_sys::console::log_1(&line.into());
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), String> {
    println!("chosen {}", pollster::block_on(report())?);
    Ok(())
}

#[cfg(target_arch = "wasm32")]
fn main() {
    use wasm_bindgen::prelude::*;

    // Defined by tests/web/index.html: the page's verdict, which must begin with OK to pass.
    #[wasm_bindgen]
    extern "C" {
        fn wengert_done(verdict: &str);
    }

    wasm_bindgen_futures::spawn_local(async {
        match report().await {
            Ok(chosen) => wengert_done(&format!("OK {chosen}")),
            Err(error) => wengert_done(&format!("FAIL {error}")),
        }
    });
}
