// Copies a to b, a span of vectors a thread: what the bandwidth of a device is measured with.
alias Span = array<vec4<f32>, 4>;

@group(0) @binding(0) var<storage, read> a: array<Span>;
@group(0) @binding(1) var<storage, read_write> b: array<Span>;

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
