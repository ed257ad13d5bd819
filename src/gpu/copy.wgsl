// Copies a to b, four elements a thread: what the bandwidth of a device is measured with.
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> b: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = (group.y * groups.x + group.x) * 256u + lane;
    if (t < arrayLength(&b)) {
        b[t] = a[t];
    }
}
