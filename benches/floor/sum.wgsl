// Sums of stretches: each subgroup walks along one of its own, four vectors a turn. `last` adds what the workgroups left.
const GROUPS: u32 = 64u;
// Of a subgroup; the program writes that of its device here.
const SIZE: u32 = 8u;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let subgroups = 64u / SIZE;
    let subgroup = thread / SIZE;
    let length = arrayLength(&x) / (GROUPS * subgroups);
    var i = (group.x * subgroups + subgroup) * length + lane;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var k = 0u; k < length; k += 4u * SIZE) {
        s0 += x[i];
        s1 += x[i + SIZE];
        s2 += x[i + 2u * SIZE];
        s3 += x[i + 3u * SIZE];
        i += 4u * SIZE;
    }
    let s = (s0 + s1) + (s2 + s3);
    let sum = subgroupAdd((s.x + s.y) + (s.z + s.w));
    if (lane == 0u) {
        sums[subgroup] = sum;
    }
    workgroupBarrier();
    if (thread == 0u) {
        var all = 0.0;
        for (var k = 0u; k < subgroups; k++) {
            all += sums[k];
        }
        partial[group.x] = all;
    }
}

@compute @workgroup_size(1)
fn last() {
    var all = 0.0;
    for (var k = 0u; k < GROUPS; k++) {
        all += partial[k];
    }
    y[0] = all;
}
