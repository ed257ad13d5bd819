// NaN told by its bits, and extrema that pass it.
//
// WGSL may assume that NaN does not exist: `x != x` is folded to false, and `max(NaN, 0)` is 0 on some devices. The
// bits of a number cannot be assumed away. Source: IEEE 754, 3.4 (exponent of ones, fraction not zero).
//
// T is f32 or vec4<f32>, and I, U, B go with it; a kernel takes the functions that it calls, for its lane count.
alias T = f32;
alias U = u32;
alias B = bool;

fn nan_T(x: T) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u);
}

fn finite_T(x: T) -> B {
    return (bitcast<U>(x) & U(0x7f800000u)) != U(0x7f800000u);
}

// The larger; NaN if either is: a NaN in `b` makes the comparison false.
fn max_T(a: T, b: T) -> T {
    return select(b, a, (a > b) | nan_T(a));
}

fn min_T(a: T, b: T) -> T {
    return select(b, a, (a < b) | nan_T(a));
}
