use super::{Read, logits, rms, rotate, silu_gate};
use tch::{Device, Kind, Tensor};

const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 0.02)];

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// Largest difference, relative to 1 and more.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((&a - &b).abs() / b.abs().clamp_min(1.0)).max().double_value(&[])
}

#[test]
fn norms_equal_the_formula_in_f64_for_odd_widths_and_many_rows() {
    for (kind, tolerance) in KINDS {
        for (rows, width) in [(1, 1), (3, 7), (5, 16), (2, 37), (700, 576)] {
            let (x, gain) = (random(&[rows, width], kind) * 3.0, random(&[width], kind));
            let wide = x.to_kind(Kind::Double);
            let mean = (&wide * &wide).mean_dim([1i64].as_slice(), true, None::<Kind>);
            let normed = wide / (mean + 1e-5).sqrt();
            let g = gain.to_kind(Kind::Double);
            assert!(
                apart(&rms(&x, &gain, 1e-5, false).unwrap(), &(&normed * &g)) < tolerance,
                "{kind:?} {width}"
            );
            assert!(apart(&rms(&x, &gain, 1e-5, true).unwrap(), &(normed * (g + 1.0))) < tolerance);
        }
    }
}

#[test]
fn gates_equal_silu_times_up() {
    for (kind, tolerance) in KINDS {
        for (rows, width) in [(1, 1), (3, 5), (400, 96)] {
            let up = random(&[rows, 2 * width], kind) * 20.0;
            let parts = up.to_kind(Kind::Double).chunk(2, 1);
            let expected = parts[0].silu() * &parts[1];
            assert!(apart(&silu_gate(&up).unwrap(), &expected) < tolerance, "{kind:?} {width}");
        }
    }
}

#[test]
fn rotations_turn_queries_and_keys_in_place_and_leave_values() {
    for (kind, tolerance) in KINDS {
        for (rows, len, heads, width, turned) in [(1, 1, 1, 2, 2), (3, 5, 3, 6, 4), (9, 33, 4, 64, 64)] {
            let qkv = random(&[rows, len, heads + 2, width], kind);
            let before = qkv.copy();
            let tables = [random(&[len, 1, turned], kind), random(&[len, 1, turned], kind)];
            let part = qkv.narrow(2, 0, heads);
            assert_eq!(rotate(&part, &tables[0], &tables[1]), Some(()));
            let expected = super::super::attend::rotate(&before.narrow(2, 0, heads), &tables[0], &tables[1]);
            assert!(apart(&part, &expected) < tolerance, "{kind:?} {len}");
            assert_eq!(apart(&qkv.narrow(2, heads, 2), &before.narrow(2, heads, 2)), 0.0);
        }
    }
}

#[test]
fn logits_read_block_by_block_give_the_highest_and_the_log_of_the_sum() {
    for (kind, tolerance) in KINDS {
        let all = random(&[130, 1000], kind) * 30.0;
        let mut read = vec![Read::NONE; 130];
        for (from, width) in [(0, 300), (300, 1), (301, 699)] {
            logits(&all.narrow(1, from, width).contiguous(), &mut read).unwrap();
        }
        let wide = all.to_kind(Kind::Double);
        let of = |f: fn(&Read) -> f32| Tensor::from_slice(&read.iter().map(f).collect::<Vec<_>>());
        assert_eq!(apart(&of(|r| r.max), &wide.amax([1i64].as_slice(), false)), 0.0);
        let total = wide.logsumexp([1i64].as_slice(), false);
        assert!(apart(&of(|r| r.max + r.sum.ln()), &total) < tolerance.min(1e-4));
    }
}

#[test]
fn a_nan_stays_one_and_infinities_do_as_they_do_in_libtorch() {
    let with = |v: f32| {
        let mut row = vec![1.0f32; 40];
        row[17] = v;
        Tensor::from_slice(&row).view([1, 40])
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut read = [Read::NONE];
        logits(&with(bad), &mut read).unwrap();
        assert!(read[0].max.is_nan() && read[0].sum.is_nan(), "{bad}");
    }
    let mut read = [Read::NONE];
    logits(&with(f32::NEG_INFINITY), &mut read).unwrap();
    assert!((read[0].sum - 39.0).abs() < 1e-5);
    let nans = |t: &Tensor| t.isnan().sum(Kind::Int64).int64_value(&[]);
    let gain = Tensor::ones([40], (Kind::Float, Device::Cpu));
    assert_eq!(nans(&rms(&with(f32::NAN), &gain, 1e-5, false).unwrap()), 40);
    assert_eq!(nans(&silu_gate(&with(f32::NAN)).unwrap()), 1);
}

#[test]
fn what_needs_a_gradient_or_another_format_is_left_to_libtorch() {
    let gain = Tensor::ones([4], (Kind::Float, Device::Cpu));
    let x = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
    assert!(rms(&x.copy().set_requires_grad(true), &gain, 1e-5, false).is_none());
    assert!(rms(&x.to_kind(Kind::Double), &gain.to_kind(Kind::Double), 1e-5, false).is_none());
    assert!(rms(&x.transpose(0, 1), &Tensor::ones([2], (Kind::Float, Device::Cpu)), 1e-5, false).is_none());
    assert!(silu_gate(&x.to_kind(Kind::Half)).is_none());
}
