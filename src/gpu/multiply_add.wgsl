// Multiply-adds and nothing else: eight chains of four lanes a thread, to hide latency. What the arithmetic peak of a
// device is measured with.
//   q  (turns, -, -, -), then the bits of (start, factor, summand, -), which keep values normal
//   b  the sums, so that nothing can be left out
@group(0) @binding(0) var<uniform> q: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read_write> b: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let s = bitcast<vec4<f32>>(q[1]);
    var x0 = vec4<f32>(f32(lane + 0u)) * s.x;
    var x1 = vec4<f32>(f32(lane + 1u)) * s.x;
    var x2 = vec4<f32>(f32(lane + 2u)) * s.x;
    var x3 = vec4<f32>(f32(lane + 3u)) * s.x;
    var x4 = vec4<f32>(f32(lane + 4u)) * s.x;
    var x5 = vec4<f32>(f32(lane + 5u)) * s.x;
    var x6 = vec4<f32>(f32(lane + 6u)) * s.x;
    var x7 = vec4<f32>(f32(lane + 7u)) * s.x;
    // A bound that is a word of the uniform alone makes lavapipe compile anew for each value of it.
    let turns = q[0].x + groups.z - 1u;
    for (var i = 0u; i < turns; i++) {
        x0 = fma(x0, s.yyyy, s.zzzz);
        x1 = fma(x1, s.yyyy, s.zzzz);
        x2 = fma(x2, s.yyyy, s.zzzz);
        x3 = fma(x3, s.yyyy, s.zzzz);
        x4 = fma(x4, s.yyyy, s.zzzz);
        x5 = fma(x5, s.yyyy, s.zzzz);
        x6 = fma(x6, s.yyyy, s.zzzz);
        x7 = fma(x7, s.yyyy, s.zzzz);
    }
    b[group.x * 256u + lane] = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7;
}
