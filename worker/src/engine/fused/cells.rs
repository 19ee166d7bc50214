//! Values of tensors as slices.
#![expect(unsafe_code, reason = "a tensor's memory is reached by a pointer")]

use tch::{Device, Kind, Tensor};

/// A number format whose arithmetic is done in f32.
pub trait Cell: Copy + Send + Sync + 'static {
    /// The format.
    const KIND: Kind;
    /// Its value.
    fn get(self) -> f32;
    /// The nearest value, ties to even.
    fn put(value: f32) -> Self;
}

impl Cell for f32 {
    const KIND: Kind = Kind::Float;
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
    #[inline(always)]
    fn put(value: f32) -> Self {
        value
    }
}

/// The upper half of an f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Cell for Bf16 {
    const KIND: Kind = Kind::BFloat16;
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn put(value: f32) -> Self {
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding could carry a NaN over into an infinity.
        Self(if value.is_nan() { (bits >> 16) | 0x40 } else { nearest } as u16)
    }
}

/// Whether the tensor's values can be reached as a slice of `T`: on the CPU, of that format, without gaps, and
/// without a gradient that would have to know of it.
pub fn plain<T: Cell>(t: &Tensor) -> bool {
    t.kind() == T::KIND && t.device() == Device::Cpu && t.is_contiguous() && !t.requires_grad()
}

/// The values of a [`plain`] tensor; of others none.
pub fn read<T: Cell>(t: &Tensor) -> &[T] {
    if !plain::<T>(t) || t.numel() == 0 {
        return &[];
    }
    // SAFETY: the tensor has that many values of T, one behind the other, and lives as long as the slice. Nothing
    // writes to it meanwhile: a lane works on its tensors one operation after the other.
    unsafe { std::slice::from_raw_parts(t.data_ptr().cast_const().cast(), t.numel()) }
}

/// The values of a [`plain`] tensor that nobody else holds; of others none.
pub fn write<T: Cell>(t: &mut Tensor) -> &mut [T] {
    if !plain::<T>(t) || t.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as in `read`; it was made here, so that no other tensor shares its memory.
    unsafe { std::slice::from_raw_parts_mut(t.data_ptr().cast(), t.numel()) }
}

/// The values of `t [tokens, heads, width]`, whose tokens lie `stride` values apart and whose heads have no gaps,
/// from the first to the last, gaps between tokens included; none where it is anything else.
pub fn write_tokens<T: Cell>(t: &mut Tensor) -> Option<(&mut [T], usize)> {
    let (size, stride) = (t.size(), t.stride());
    let ([tokens, heads, width], [between, head, 1]) = (size.as_slice(), stride.as_slice()) else {
        return None;
    };
    let fits = head == width && *between >= heads * width && *tokens > 0;
    if !fits || t.kind() != T::KIND || t.device() != Device::Cpu || t.requires_grad() {
        return None;
    }
    let len = (tokens - 1) * between + heads * width;
    // SAFETY: the tensor's first value and its last are `len` values apart in one allocation. The caller made the
    // tensor and holds it alone; what lies between its tokens belongs to the same allocation.
    Some((unsafe { std::slice::from_raw_parts_mut(t.data_ptr().cast(), len as usize) }, *between as usize))
}
