//! The device as users see it. Runs on any adapter; software Vulkan will do.

#![cfg(not(target_arch = "wasm32"))]

use wengert::error::{Error, ErrorKind};
use wengert::gpu::{Class, Device, DeviceOptions};

#[test]
fn a_device_opens_and_describes_itself() {
    let device = Device::blocking().unwrap();
    assert!(device.limits().max_storage_buffers_per_shader_stage >= 4);
    assert!(!device.features().intersects(wgpu::Features::all_experimental_mask()));
    assert_eq!(device.class() == Class::Cpu, device.info().device_type == wgpu::DeviceType::Cpu);
    assert_eq!(device.class().to_string(), device.class().name());
    if let Some(size) = device.subgroup_size() {
        assert!(size.is_power_of_two());
    }
    assert!(format!("{device:?}").starts_with("Device("));
    device.wait_blocking().unwrap();
    assert_eq!(device.stats().waits, 1);
    device.check().unwrap();
}

#[test]
fn clones_are_equal_and_devices_are_not() {
    let device = Device::blocking().unwrap();
    assert_eq!(device, device.clone());
    assert_ne!(device, Device::blocking().unwrap());
}

#[test]
fn an_adapter_is_chosen_by_any_part_of_its_description() {
    let info = Device::blocking().unwrap().info().clone();
    for part in [info.name.to_uppercase(), format!("{:?}", info.backend), format!(" {:?} ", info.device_type)] {
        let options = DeviceOptions { adapter: Some(part.clone()), ..Default::default() };
        pollster::block_on(Device::with(options)).unwrap_or_else(|error| panic!("{part}: {error}"));
    }
    let options = DeviceOptions { adapter: Some("0".into()), label: Some("first".into()), ..Default::default() };
    assert!(format!("{:?}", pollster::block_on(Device::with(options)).unwrap()).contains("first"));
}

#[test]
fn an_unknown_adapter_is_answered_with_the_known_ones() {
    let name = Device::blocking().unwrap().info().name.clone();
    let options = DeviceOptions { adapter: Some("no such gpu".into()), ..Default::default() };
    match pollster::block_on(Device::with(options)).map_err(Error::into_kind) {
        Err(ErrorKind::NoAdapter { wanted, found }) => {
            assert_eq!(wanted, "no such gpu");
            assert!(found.iter().any(|found| found.contains(&name)), "{found:?}");
        }
        other => panic!("{other:?}"),
    }
}
