// Sine and cosine of radians.
//
// WGSL promises little of its own: an absolute error of 2^-11 within one turn, nothing beyond. Source: Cephes' sinf and
// cosf (Moshier), polynomials on the eighth of a turn around each quarter; quarters are taken off in three parts
// (Cody and Waite 1980).
//
// T is f32 or vec4<f32>, and I goes with it; a kernel takes the functions that it calls, for its lane count.
alias T = f32;
alias I = i32;

// `shift` is 0 for the sine and 1, a quarter further, for the cosine.
fn sine_T(x: T, shift: I) -> T {
    let n = round(x * T(0.636619772367581));
    let r = ((x - n * T(1.5703125)) - n * T(4.837512969970703125e-4)) - n * T(7.54978995489188216e-8);
    let z = r * r;
    let s = ((T(-1.9515295891e-4) * z + T(8.3321608736e-3)) * z - T(1.6666654611e-1)) * z * r + r;
    let c = ((T(2.443315711809948e-5) * z - T(1.388731625493765e-3)) * z + T(4.166664568298827e-2)) * z * z - T(0.5) * z + T(1.0);
    let q = I(n) + shift;
    let v = select(s, c, (q & I(1)) == I(1));
    return select(v, -v, (q & I(2)) == I(2));
}
