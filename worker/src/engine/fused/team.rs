//! Work split by rows over the threads of libtorch's own OpenMP team. A second pool of threads would fight that
//! team for the processor, because its threads spin for a while after each of libtorch's operations.
#![expect(unsafe_code, reason = "calling OpenMP's runtime, and giving each thread its own part of a slice")]

use libloading::os::unix::Library;
use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// The calls that a compiler makes for a parallel region.
struct OpenMp {
    parallel: unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint),
    number: unsafe extern "C" fn() -> c_int,
    team: unsafe extern "C" fn() -> c_int,
}

/// The OpenMP runtime that libtorch has brought along; none where it is another one than GNU's, and then work
/// stays on the calling thread.
fn open_mp() -> Option<&'static OpenMp> {
    static FOUND: OnceLock<Option<OpenMp>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let this = Library::this();
            // SAFETY: these names belong to the OpenMP runtime, with these signatures; it is never unloaded.
            unsafe {
                Some(OpenMp {
                    parallel: *this.get(b"GOMP_parallel\0").ok()?,
                    number: *this.get(b"omp_get_thread_num\0").ok()?,
                    team: *this.get(b"omp_get_num_threads\0").ok()?,
                })
            }
        })
        .as_ref()
}

/// A slice of which each thread takes other rows.
struct Rows<'a, T> {
    first: *mut T,
    len: usize,
    width: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: threads only reach the slice through `of`, whose callers ask for rows that no other thread asks for.
unsafe impl<T: Send> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// Rows of `width` values; the last may be shorter.
    fn new(slice: &'a mut [T], width: usize) -> Self {
        Self { first: slice.as_mut_ptr(), len: slice.len(), width, slice: PhantomData }
    }

    /// The given rows.
    ///
    /// # Safety
    /// Of two parts that are alive at once, none has a row of the other.
    #[expect(clippy::mut_from_ref, reason = "each thread has its own rows")]
    unsafe fn of(&self, from: usize, to: usize) -> &mut [T] {
        let (from, to) = ((from * self.width).min(self.len), (to * self.width).min(self.len));
        // SAFETY: within the slice, and no other part has these rows.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(from), to - from) }
    }
}

struct Job<'a> {
    rows: usize,
    omp: &'a OpenMp,
    work: &'a (dyn Fn(usize, usize) + Sync),
}

extern "C" fn part(job: *mut c_void) {
    // SAFETY: the job outlives the region that it was given to.
    let job = unsafe { &*job.cast::<Job<'_>>() };
    // SAFETY: asks for the calling thread's place in its team.
    let (at, of) = unsafe { ((job.omp.number)() as usize, ((job.omp.team)() as usize).max(1)) };
    let (from, to) = (job.rows * at / of, job.rows * (at + 1) / of);
    if from < to {
        (job.work)(from, to);
    }
}

/// Calls `work(from, to)` for ranges that together are 0..rows, each once.
fn ranges(rows: usize, values: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    let threads = tch::get_num_threads().clamp(1, rows.max(1) as i32);
    match open_mp() {
        Some(omp) if threads > 1 && values >= LEAST => {
            let mut job = Job { rows, omp, work };
            // SAFETY: the call returns when all threads are through with the job.
            unsafe { (omp.parallel)(part, (&raw mut job).cast(), threads as c_uint, 0) };
        }
        _ => work(0, rows),
    }
}

/// Values below which threads cost more than they bring.
const LEAST: usize = 1 << 14;

/// Calls `work(first row, its rows)` for parts of `out`.
pub fn split<T: Send>(out: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let values = out.len();
    split_weighed(out, width, values, work);
}

/// Calls `work(first row, its rows, the same rows of beside)` for parts of `out`; `beside` is as long, or empty.
pub fn split_both<T: Send>(
    out: &mut [T],
    beside: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) {
    let (values, rows) = (out.len(), out.len().div_ceil(width.max(1)));
    let (out, beside) = (Rows::new(out, width), Rows::new(beside, width));
    // SAFETY: no two ranges share a row.
    ranges(rows, values, &|from, to| unsafe { work(from, out.of(from, to), beside.of(from, to)) });
}

/// [`split`] of work that touches `values` values.
pub fn split_weighed<T: Send>(
    out: &mut [T],
    width: usize,
    values: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = out.len().div_ceil(width.max(1));
    let out = Rows::new(out, width);
    // SAFETY: no two ranges share a row.
    ranges(rows, values, &|from, to| work(from, unsafe { out.of(from, to) }));
}
