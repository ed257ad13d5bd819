// y = gelu(a b + c) in its tanh form, as x times a logistic: four elements a thread.
@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> c: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    let x = a[i] * b[i] + c[i];
    let u = 1.5957691216 * (x + 0.044715 * x * x * x);
    y[i] = x / (1.0 + exp(-u));
}
