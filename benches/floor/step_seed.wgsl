// The guide's model in one workgroup, for one batch or several: Dense(32 -> 1), mean squared error, mean absolute error,
// Adam. Thread c holds weight c and its moments, thread 32 the bias; `state` is 64 values each of parameters, first and second
// moments, and then the number of steps and the sums of the two metrics.
const STEPS: u32 = 1u;
const RATE: f32 = 0.001;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;

var<workgroup> weights: array<f32, 40>;
var<workgroup> errors: array<f32, 32>;

@compute @workgroup_size(40)
fn main(@builtin(local_invocation_index) thread: u32) {
    let c = min(thread, 32u);
    var parameter = state[c];
    var mean = state[64u + c];
    var square = state[128u + c];
    var count = state[192];
    var loss = 0.0;
    var absolute = 0.0;
    weights[thread] = parameter;
    workgroupBarrier();
    for (var k = 0u; k < STEPS; k++) {
        let batch = k * 1024u;
        if (thread < 32u) {
            var sum = weights[32];
            for (var i = 0u; i < 32u; i++) {
                sum += x[batch + thread * 32u + i] * weights[i];
            }
            errors[thread] = sum - y[k * 32u + thread];
        }
        workgroupBarrier();
        var gradient = 0.0;
        if (thread < 32u) {
            for (var row = 0u; row < 32u; row++) {
                gradient += errors[row] * x[batch + row * 32u + thread];
            }
        } else {
            for (var row = 0u; row < 32u; row++) {
                gradient += errors[row];
                loss += errors[row] * errors[row] / 32.0;
                absolute += abs(errors[row]) / 32.0;
            }
        }
        gradient *= 2.0 / 32.0;
        count += 1.0;
        mean += (gradient - mean) * 0.1;
        square += (gradient * gradient - square) * 0.001;
        let rate = RATE * sqrt(1.0 - exp2(count * log2(0.999))) / (1.0 - exp2(count * log2(0.9)));
        parameter -= rate * mean / (sqrt(square) + 1e-7);
        weights[thread] = parameter;
        workgroupBarrier();
    }
    if (thread < 33u) {
        state[c] = parameter;
        state[64u + c] = mean;
        state[128u + c] = square;
    }
    if (thread == 32u) {
        state[192] = count;
        state[193] += loss;
        state[194] += absolute;
    }
}
