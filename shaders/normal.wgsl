// Normal numbers from random words, in integers alone: the inverse of the normal distribution function in fixed point.
//
// Float arithmetic is not the same on all devices (WGSL leaves fused multiply-add, rounding and the error of log, sqrt
// and division to the driver), integer arithmetic is; src/random/quantile.rs is the same function on the host. Source of
// the form: Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), a logarithm, then a polynomial in it
// for each of a few ranges. Error of the quantile below 2^-23.
//
// T, I, U, B are f32, i32, u32, bool or vectors of four of them; a kernel takes the functions that it calls, for its
// lane count.
alias T = f32;
alias I = i32;
alias U = u32;
alias B = bool;

// a b / 2^31 for b / 2^31 in [-1, 1), from products of halves that fit in 32 bits. Up to three units too low, one on
// average, which the constants below make up for.
fn scale_T(a: I, b: I) -> I {
    let al = a & I(0xffff);
    let ah = a >> U(16u);
    let bl = b & I(0xffff);
    let bh = b >> U(16u);
    let middle = ((ah * bl) >> U(1u)) + ((al * bh) >> U(1u));
    return ah * bh * I(2) + (middle >> U(14u));
}

// The upper word of the product of two words.
fn high_T(a: U, b: U) -> U {
    let al = a & U(0xffffu);
    let ah = a >> U(16u);
    let bl = b & U(0xffffu);
    let bh = b >> U(16u);
    let m = ah * bl + ((al * bl) >> U(16u));
    let n = al * bh + (m & U(0xffffu));
    return ah * bh + (m >> U(16u)) + (n >> U(16u));
}

// One of four by where m lies between the three bounds of the ranges.
fn range_T(m: I, a: I, b: I, c: I, d: I) -> I {
    return select(select(select(a, b, m >= I(-982473769)), c, m >= I(-768396493)), d, m >= I(-241591910));
}

// x >= 0 in units of 2^-24 such that a standard normal number is above it with probability q / 2^33, q > 0.
fn quantile_T(q: U) -> I {
    // q = 2^(31 - z) (1.5 + t / 2), t in [-1, 1) in units of 2^-31.
    let z = countLeadingZeros(q);
    let t = bitcast<I>(((q << z) << U(1u)) ^ U(0x80000000u));
    // log2(1.5 + t / 2) in units of 2^-30.
    var l = I(11634);
    l = I(-37222) + scale_T(l, t);
    l = I(97798) + scale_T(l, t);
    l = I(-347050) + scale_T(l, t);
    l = I(1276681) + scale_T(l, t);
    l = I(-4783721) + scale_T(l, t);
    l = I(19124113) + scale_T(l, t);
    l = I(-86059780) + scale_T(l, t);
    l = I(516360690) + scale_T(l, t);
    l = I(628098697) + scale_T(l, t);
    // The number of halvings from 1/2 to the probability, 1 + z - log2, less 16: from -16 to 16 in units of 2^-26.
    let m = (bitcast<I>(z) - I(15)) * I(0x4000000) - (l >> U(4u));
    // Where m lies in its range, [-1, 1) in units of 2^-31, and x by the polynomial of that range in units of 2^-28.
    let centre = range_T(m, I(-1028107796), I(-875435131), I(-504994202), I(416074957));
    let s = (m - centre) << bitcast<U>(range_T(m, I(5), I(4), I(3), I(1)));
    var x = range_T(m, I(199575), I(53097), I(12843), I(1362576));
    x = range_T(m, I(-355458), I(-111884), I(-32455), I(-2116620)) + scale_T(x, s);
    x = range_T(m, I(461580), I(173311), I(59165), I(2345853)) + scale_T(x, s);
    x = range_T(m, I(-964165), I(-428372), I(-177425), I(-4365006)) + scale_T(x, s);
    x = range_T(m, I(2119582), I(1115531), I(562403), I(8608012)) + scale_T(x, s);
    x = range_T(m, I(-4667362), I(-2925169), I(-1792027), I(-17067798)) + scale_T(x, s);
    x = range_T(m, I(11235769), I(8435453), I(6322391), I(37689791)) + scale_T(x, s);
    x = range_T(m, I(-32297460), I(-29446887), I(-27370957), I(-103166219)) + scale_T(x, s);
    x = range_T(m, I(164116620), I(190427885), I(227483654), I(554090788)) + scale_T(x, s);
    x = range_T(m, I(131521468), I(407542530), I(802017334), I(1393835071)) + scale_T(x, s);
    return max((x + I(8)) >> U(4u), I(0));
}

// A float from units of 2^-24: rounded to 24 bits in integers, so that conversion and scaling are exact.
fn unscale_T(k: I, negative: B) -> T {
    let excess = U(8u) - min(countLeadingZeros(bitcast<U>(k)), U(8u));
    let whole = (k + bitcast<I>((U(1u) << excess) >> U(1u))) >> excess;
    return T(select(whole, -whole, negative)) * bitcast<T>((excess + U(103u)) << U(23u));
}

// Standard normal: the lowest bit of the word is the sign, the others choose the probability of the tail.
fn normal_T(word: U) -> T {
    return unscale_T(quantile_T(word | U(1u)), (word & U(1u)) == U(1u));
}

// Standard normal on the condition that it lies within two standard deviations: the probability of the tail is between
// that of 2 and one half.
fn truncated_normal_T(word: U) -> T {
    let q = U(195422146u) + high_T(word | U(1u), U(4099545150u));
    return unscale_T(quantile_T(q), (word & U(1u)) == U(1u));
}
