// Threefry-2x32 with 20 rounds: random bits as a function of a key and a counter.
//
// Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Integers alone, so the
// bits are the same on every device; src/random/threefry.rs is the same function on the host.
//
// U is u32 or vec4<u32>; a kernel takes the functions that it calls, for its lane count.
alias U = u32;

// The block of the counter (0, c) under the key (k0, k1): its first word for w = 0, its second for 1, their exclusive
// or for 2.
fn threefry_T(k0: U, k1: U, c: U, w: U) -> U {
    let k2 = k0 ^ k1 ^ U(0x1bd11bdau);
    var x = k0;
    var y = c + k1;
    x += y; y = ((y << U(13u)) | (y >> U(19u))) ^ x;
    x += y; y = ((y << U(15u)) | (y >> U(17u))) ^ x;
    x += y; y = ((y << U(26u)) | (y >> U(6u))) ^ x;
    x += y; y = ((y << U(6u)) | (y >> U(26u))) ^ x;
    x += k1; y += k2 + U(1u);
    x += y; y = ((y << U(17u)) | (y >> U(15u))) ^ x;
    x += y; y = ((y << U(29u)) | (y >> U(3u))) ^ x;
    x += y; y = ((y << U(16u)) | (y >> U(16u))) ^ x;
    x += y; y = ((y << U(24u)) | (y >> U(8u))) ^ x;
    x += k2; y += k0 + U(2u);
    x += y; y = ((y << U(13u)) | (y >> U(19u))) ^ x;
    x += y; y = ((y << U(15u)) | (y >> U(17u))) ^ x;
    x += y; y = ((y << U(26u)) | (y >> U(6u))) ^ x;
    x += y; y = ((y << U(6u)) | (y >> U(26u))) ^ x;
    x += k0; y += k1 + U(3u);
    x += y; y = ((y << U(17u)) | (y >> U(15u))) ^ x;
    x += y; y = ((y << U(29u)) | (y >> U(3u))) ^ x;
    x += y; y = ((y << U(16u)) | (y >> U(16u))) ^ x;
    x += y; y = ((y << U(24u)) | (y >> U(8u))) ^ x;
    x += k1; y += k2 + U(4u);
    x += y; y = ((y << U(13u)) | (y >> U(19u))) ^ x;
    x += y; y = ((y << U(15u)) | (y >> U(17u))) ^ x;
    x += y; y = ((y << U(26u)) | (y >> U(6u))) ^ x;
    x += y; y = ((y << U(6u)) | (y >> U(26u))) ^ x;
    x += k2; y += k0 + U(5u);
    return select(select(x, y, w == U(1u)), x ^ y, w == U(2u));
}
