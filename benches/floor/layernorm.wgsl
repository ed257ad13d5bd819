// Layer norm of rows of 1024 with scale and shift; the variance is that of the differences from the mean.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> shift: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let at = Place(thread, lane);
    let i = first(group.x, at);
    var v0 = x[i];
    var v1 = x[i + SIZE];
    var v2 = x[i + 2u * SIZE];
    var v3 = x[i + 3u * SIZE];
    let mean = sum_of_row((v0 + v1) + (v2 + v3), at) / 1024.0;
    v0 -= mean;
    v1 -= mean;
    v2 -= mean;
    v3 -= mean;
    let variance = sum_of_row((v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3), at) / 1024.0;
    let r = inverseSqrt(variance + 1e-3);
    let j = first(0u, at);
    y[i] = v0 * r * scale[j] + shift[j];
    y[i + SIZE] = v1 * r * scale[j + SIZE] + shift[j + SIZE];
    y[i + 2u * SIZE] = v2 * r * scale[j + 2u * SIZE] + shift[j + 2u * SIZE];
    y[i + 3u * SIZE] = v3 * r * scale[j + 3u * SIZE] + shift[j + 3u * SIZE];
}
