// What the kernels over rows of 1024 share: 64 threads a row, 16 elements in the registers of each, every subgroup on a
// stretch of its own.
const THREADS: u32 = 64u;
// Of a subgroup; the program writes that of its device here.
const SIZE: u32 = 8u;

var<workgroup> parts: array<f32, 64>;

struct Place {
    thread: u32,
    lane: u32,
}

// The first of a thread's four vectors; the next ones are `SIZE` further each.
fn first(row: u32, at: Place) -> u32 {
    return row * 256u + (at.thread / SIZE) * 4u * SIZE + at.lane;
}

fn sum_of_row(v: vec4<f32>, at: Place) -> f32 {
    let part = subgroupAdd((v.x + v.y) + (v.z + v.w));
    if (at.lane == 0u) {
        parts[at.thread / SIZE] = part;
    }
    workgroupBarrier();
    var sum = parts[0];
    for (var k = 1u; k < THREADS / SIZE; k++) {
        sum += parts[k];
    }
    workgroupBarrier();
    return sum;
}

fn max_of_row(v: vec4<f32>, at: Place) -> f32 {
    let part = subgroupMax(max(max(v.x, v.y), max(v.z, v.w)));
    if (at.lane == 0u) {
        parts[at.thread / SIZE] = part;
    }
    workgroupBarrier();
    var most = parts[0];
    for (var k = 1u; k < THREADS / SIZE; k++) {
        most = max(most, parts[k]);
    }
    workgroupBarrier();
    return most;
}
