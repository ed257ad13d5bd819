// Softmax of rows of 1024.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

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
    let most = max_of_row(max(max(v0, v1), max(v2, v3)), at);
    v0 = exp(v0 - most);
    v1 = exp(v1 - most);
    v2 = exp(v2 - most);
    v3 = exp(v3 - most);
    let scale = 1.0 / sum_of_row((v0 + v1) + (v2 + v3), at);
    y[i] = v0 * scale;
    y[i + SIZE] = v1 * scale;
    y[i + 2u * SIZE] = v2 * scale;
    y[i + 3u * SIZE] = v3 * scale;
}
