//! SCTP's checksum, changed without reading the packet (RFC 9260 appendix A: CRC32c).
//!
//! A CRC is linear: what a change does to it is the CRC of the change alone, followed by as many zeroes as bytes
//! follow it in the packet. Following zeroes is a multiplication by a power of x, which squaring finds in a
//! number of steps that depends on the length's bits only.

/// The CRC32c polynomial, the lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^8 modulo the polynomial: one more byte.
const BYTE: u32 = 1 << (31 - 8);

/// The product of two polynomials over GF(2), modulo that of CRC32c; the lowest power is in the highest bit.
#[inline(always)]
pub const fn crc32c_multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & (a >> 31).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        a <<= 1;
        bit += 1;
    }
    product
}

/// What the checksum of an SCTP packet of `length` bytes (at most 65,535) changes by, to be combined with it by
/// exclusive or, when the packet's first four bytes change from `old` to `new`. All three are words as they
/// stand in the packet on a little-endian machine, which is the order of this CRC. `multiply` is
/// [`crc32c_multiply`], which the datapath has as a function that the verifier need not walk through each time.
#[inline(always)]
pub fn crc32c_replace(old: u32, new: u32, length: u32, multiply: impl Fn(u32, u32) -> u32) -> u32 {
    let mut change = old ^ new;
    let mut power = BYTE;
    for bit in 0..16 {
        if length >> bit & 1 == 1 {
            change = multiply(power, change);
        }
        power = multiply(power, power);
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum from first principles.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0_u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn the_reference_gives_the_known_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_change_equals_a_sum_anew(old: [u8; 4], new: [u8; 4], rest in proptest::collection::vec(any::<u8>(), 8..2_000)) {
            let packet = |first: [u8; 4]| [&first[..], &rest].concat();
            let change = crc32c_replace(u32::from_le_bytes(old), u32::from_le_bytes(new), rest.len() as u32 + 4, crc32c_multiply);
            prop_assert_eq!(crc32c(&packet(old)) ^ change, crc32c(&packet(new)));
        }
    }
}
