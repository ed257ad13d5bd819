// Multiply-adds and nothing else: what the arithmetic peak of a device is measured with. Twelve chains a thread, three of
// four lanes, are enough to hide latency and with their operands still fit the 16 vector registers of a CPU without
// AVX-512: on lavapipe 32 chains, which spill, reached half of this. Eight links in a turn make the loop's own work small.
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
    let factor = s.yyyy;
    let summand = s.zzzz;
    var x0 = vec4<f32>(vec4<u32>(lane) + vec4<u32>(0u, 1u, 2u, 3u)) * s.x;
    var x1 = vec4<f32>(vec4<u32>(lane) + vec4<u32>(4u, 5u, 6u, 7u)) * s.x;
    var x2 = vec4<f32>(vec4<u32>(lane) + vec4<u32>(8u, 9u, 10u, 11u)) * s.x;
    // A bound that is a word of the uniform alone makes lavapipe compile anew for each value of it.
    let turns = q[0].x + groups.z - 1u;
    for (var i = 0u; i < turns; i++) {
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
        x0 = fma(x0, factor, summand);
        x1 = fma(x1, factor, summand);
        x2 = fma(x2, factor, summand);
    }
    b[group.x * 256u + lane] = x0 + x1 + x2;
}
