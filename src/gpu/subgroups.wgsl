// Every subgroup operation that kernels use, by 64 threads on numbers of their own: what `selftest.rs` compares.
@group(0) @binding(0) var<storage, read_write> found: array<vec4<u32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let x = (thread * 37u + 11u) % 101u;
    let y = f32(x) - 50.0;
    found[3u * thread] = vec4<u32>(size, lane, subgroupBroadcast(x, 0u), subgroupBroadcast(x, 3u));
    found[3u * thread + 1u] = vec4<u32>(subgroupAdd(x), subgroupMax(x), subgroupMin(x), subgroupShuffleXor(x, 1u));
    found[3u * thread + 2u] = bitcast<vec4<u32>>(vec4<f32>(subgroupAdd(y), subgroupMax(y), subgroupMin(y), subgroupShuffleXor(y, 2u)));
}
