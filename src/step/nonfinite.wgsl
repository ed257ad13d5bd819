// Finds the first element of a tensor that is a NaN or an infinity, by its bits: WGSL may assume that there are none.
//   q      (elements, place in `found`, -, -)
//   x      the tensor, f32 by its bits
//   found  the first index for each tensor, 0xffffffff to begin with
@group(0) @binding(0) var<uniform> q: vec4<u32>;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;

const WIDTH: u32 = 256u;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // A bound that is a word of the uniform alone makes lavapipe compile anew for each value of it.
    let end = q.x + groups.z - 1u;
    for (var i = group.x * WIDTH + lane; i < end; i += groups.x * WIDTH) {
        if ((x[i] & 0x7f800000u) == 0x7f800000u) {
            atomicMin(&found[q.y], i);
        }
    }
}
