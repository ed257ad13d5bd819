// Powers with a real and with a whole exponent.
//
// WGSL leaves powers of negative numbers undefined. Source of the special cases: C23, F.10.4.4 (pow).
//
// T is f32 or vec4<f32>, and I, U go with it; a kernel takes the functions that it calls, for its lane count.
alias T = f32;
alias I = i32;
alias U = u32;

// A negative base gives NaN (the root of -1) unless the exponent is whole; anything to the power of 0 is 1.
fn pow_T(a: T, b: T) -> T {
    let p = exp2(b * log2(abs(a)));
    let odd = abs(b - T(2.0) * floor(b * T(0.5))) == T(1.0);
    let whole = floor(b) == b;
    let negative = select(sqrt(select(a, T(-1.0), a < T(0.0))), select(p, -p, odd), whole);
    let zero = select(T(0.0), p, b < T(0.0));
    return select(select(select(p, zero, a == T(0.0)), negative, a < T(0.0)), T(1.0), b == T(0.0));
}

// Repeated squaring: as exact as its products, which a logarithm near 1 is not.
fn powi_T(a: T, n: I) -> T {
    var r = T(1.0);
    var s = a;
    var k = abs(n);
    for (var i = 0u; i < 32u; i++) {
        r = select(r, r * s, (k & I(1)) == I(1));
        k = k >> U(1u);
        s = select(s, s * s, k > I(0));
    }
    return select(r, T(1.0) / r, n < I(0));
}
