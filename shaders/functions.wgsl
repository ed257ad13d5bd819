// Functions that WGSL lacks or has only loosely: tanh, logistic, log1p, expm1, erf, the normal distribution, mish.
//
// Each names its source. Errors are a few units in the last place of the result, or of 1 where the result is smaller.
//
// T is f32 or vec4<f32>; a kernel takes the functions that it calls, for its lane count.
alias T = f32;

// tanh by its exponential form, and by the odd polynomial of Cephes (Moshier) near zero where that form cancels. The
// built-in may be NaN for large arguments.
fn tanh_T(x: T) -> T {
    let a = select(abs(x), T(15.0), abs(x) > T(15.0));
    let far = T(1.0) - T(2.0) / (exp(a + a) + T(1.0));
    let z = x * x;
    let p = (((T(-5.70498872745e-3) * z + T(2.06390887954e-2)) * z - T(5.37397155531e-2)) * z + T(1.33314422036e-1)) * z - T(3.33332819422e-1);
    return select(select(far, -far, x < T(0.0)), p * z * x + x, a < T(0.625));
}

// 1 / (1 + e^-x). The exponential never overflows: its argument is not positive.
fn sigmoid_T(x: T) -> T {
    let e = exp(-abs(x));
    return select(T(1.0), e, x < T(0.0)) / (T(1.0) + e);
}

// log(1 + x): 2 artanh(x / (2 + x)) by its series between -1/2 and 1, where rounding 1 + x would lose digits of x. A form that
// measures what was lost, (1 + x) - 1, does not serve: drivers simplify it to x.
fn log1p_T(x: T) -> T {
    let s = x / (T(2.0) + x);
    let z = s * s;
    let p = ((((((T(6.66666667e-2) * z + T(7.69230769e-2)) * z + T(9.09090909e-2)) * z + T(1.11111111e-1)) * z + T(1.42857143e-1)) * z + T(2.0e-1)) * z + T(3.33333333e-1)) * z;
    return select(log(T(1.0) + x), T(2.0) * (s * p + s), (x > T(-0.5)) & (x < T(1.0)));
}

// e^x - 1: Taylor's series up to x^8 within 1/2, where the difference would cancel.
fn expm1_T(x: T) -> T {
    let p = (((((T(2.48015873e-5) * x + T(1.98412698e-4)) * x + T(1.38888889e-3)) * x + T(8.33333333e-3)) * x + T(4.16666667e-2)) * x + T(1.66666667e-1)) * x + T(0.5);
    return select(exp(x) - T(1.0), p * x * x + x, abs(x) < T(0.5));
}

// e^(-x^2 / 2). Of the density and the distribution function at one number a driver computes it once.
fn gauss_T(x: T) -> T {
    return exp(T(-0.5) * (x * x));
}

// The probability that a standard normal number is above |x|: exp(-x^2 / 2) times a polynomial in 1 / (1 + 0.24 |x|),
// the form of Hastings (1955) with a fit of its own, relative error 3e-9 up to 14.
fn tail_T(x: T) -> T {
    let t = T(1.0) / (T(1.0) + T(0.24) * abs(x));
    let p = ((((((((T(2.547365986e-2) * t - T(1.2433628738e-1)) * t + T(2.0472779870e-1)) * t - T(1.4319875836e-1)) * t + T(1.4049255848e-1)) * t + T(2.871168219e-2)) * t + T(8.755269647e-2)) * t + T(8.898341656e-2)) * t + T(9.585080296e-2)) * t + T(9.574243426e-2);
    return gauss_T(x) * (p * t);
}

// The probability that a standard normal number is below x. The lower tail keeps its relative precision.
fn normal_cdf_T(x: T) -> T {
    let tail = tail_T(x);
    return select(tail, T(1.0) - tail, x > T(0.0));
}

// erf by a minimax polynomial in x^2 within 1 (relative error 1e-9), and by the tail beyond.
fn erf_T(x: T) -> T {
    let z = x * x;
    let near = ((((((T(7.853847083e-5) * z - T(8.010189303e-4)) * z + T(5.188327194e-3)) * z - T(2.685381168e-2)) * z + T(1.128358514e-1)) * z - T(3.761262582e-1)) * z + T(1.128379166)) * x;
    let far = T(1.0) - T(2.0) * tail_T(T(1.4142135623730951) * x);
    return select(select(far, -far, x < T(0.0)), near, abs(x) < T(1.0));
}

// tanh(log(1 + e^x)) as a quotient of polynomials in e^-|x|, without cancellation (Misra 2019 for mish).
fn tanh_softplus_T(x: T) -> T {
    let e = exp(-abs(x));
    let n = select(T(1.0) + (e + e), e * (e + T(2.0)), x < T(0.0));
    let d = select(T(2.0) * e * e, T(2.0), x < T(0.0));
    return n / (n + d);
}
