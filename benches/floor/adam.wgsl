// One update of Adam (Kingma and Ba 2015) at its first step: four parameters a thread, all in one buffer. The corrected
// rate is a constant here, what a program that counts on the host would hand in.
const RATE: f32 = 0.001;
const CORRECTED: f32 = RATE * 0.31622776601683794; // at step 1: rate sqrt(1 - 0.999) / (1 - 0.9)

@group(0) @binding(0) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i >= arrayLength(&p)) {
        return;
    }
    let d = g[i];
    let mean = m[i] + (d - m[i]) * 0.1;
    let square = v[i] + (d * d - v[i]) * 0.001;
    m[i] = mean;
    v[i] = square;
    p[i] -= CORRECTED * mean / (sqrt(square) + 1e-7);
}
