use super::super::masked::Apply;
use super::{Form, Read, Wanted, activate, gate, logits, norm, rotate};
use ablate_common::model::Activation;
use tch::{Device, Kind, Tensor};

const ACTIVATIONS: [Activation; 4] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu];
const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 0.02)];

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// An RMS norm.
fn rms(x: &Tensor, gain: &Tensor) -> Option<Tensor> {
    let form = Form { centred: false, plus_one: false, eps: 1e-5 };
    norm(x, None, (gain, None), form, false).map(|n| n.0)
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
            let own = |plus_one| {
                let form = Form { centred: false, plus_one, eps: 1e-5 };
                norm(&x, None, (&gain, None), form, false).unwrap().0
            };
            assert!(apart(&own(false), &(&normed * &g)) < tolerance, "{kind:?} {width}");
            assert!(apart(&own(true), &(normed * (g + 1.0))) < tolerance);
        }
    }
}

#[test]
fn layer_norms_of_sums_with_a_bias_equal_the_formula_in_f64_and_give_the_sum() {
    for (kind, tolerance) in KINDS {
        for (rows, width) in [(1, 2), (3, 7), (5, 16), (2, 37), (700, 384)] {
            let [x, more] = [0, 1].map(|_| random(&[rows, width], kind) * 3.0 + 1.0);
            let [gain, shift, bias] = [0, 1, 2].map(|_| random(&[width], kind));
            for (more, bias) in [(None, None), (Some(&more), None), (Some(&more), Some(&bias))] {
                let mut sum = x.to_kind(Kind::Double);
                more.iter().for_each(|m| sum += m.to_kind(Kind::Double));
                bias.iter().for_each(|b| sum += b.to_kind(Kind::Double));
                // The residual stream is kept in its format, and normed as kept.
                let rounded = sum.to_kind(kind).to_kind(Kind::Double);
                let wide = |t: &Tensor| Some(t.to_kind(Kind::Double));
                let expected = rounded.layer_norm([width], wide(&gain), wide(&shift), 1e-5, false);
                let form = Form { centred: true, plus_one: false, eps: 1e-5 };
                let more = more.map(|m| (m, bias));
                let (own, kept) = norm(&x, more, (&gain, Some(&shift)), form, true).unwrap();
                // Of two values the variance may be next to nothing.
                let tolerance = if width == 2 { 20.0 * tolerance } else { 2.0 * tolerance };
                assert!(apart(&own, &expected) < tolerance, "{kind:?} {width}");
                assert!(apart(&kept.unwrap(), &sum) < tolerance);
            }
        }
    }
}

#[test]
fn gates_equal_the_activation_times_up_in_f64() {
    for (kind, tolerance) in KINDS {
        for (rows, width) in [(1, 1), (3, 5), (400, 96)] {
            for activation in ACTIVATIONS {
                let up = random(&[rows, 2 * width], kind) * 20.0;
                let parts = up.to_kind(Kind::Double).chunk(2, 1);
                let expected = activation.apply(&parts[0]) * &parts[1];
                let own = gate(&up, activation).unwrap();
                assert!(apart(&own, &expected) < tolerance, "{kind:?} {width} {activation:?}");
            }
        }
    }
}

#[test]
fn activations_of_sums_with_a_bias_equal_those_in_f64() {
    for (kind, tolerance) in KINDS {
        for (rows, width) in [(1, 1), (3, 7), (500, 96)] {
            for activation in ACTIVATIONS {
                let (x, bias) = (random(&[rows, width], kind) * 4.0, random(&[width], kind));
                for bias in [None, Some(&bias)] {
                    let wide = x.to_kind(Kind::Double);
                    let wide = bias.map_or_else(|| wide.copy(), |b| &wide + b.to_kind(Kind::Double));
                    let mut own = x.copy();
                    assert_eq!(activate(&mut own, bias, activation), Some(()));
                    let worst = apart(&own, &activation.apply(&wide));
                    assert!(worst < tolerance, "{kind:?} {width} {activation:?}: {worst:e}");
                }
            }
        }
    }
    // Far out on the left what is left is relatively as exact; NaN stays.
    let mut x = Tensor::from_slice(&[-9.0f32, -5.0, -1.0, -0.0, 0.0, 30.0, f32::NAN]).unsqueeze(0);
    let expected = x.to_kind(Kind::Double);
    let expected = &expected * 0.5 * (&expected * -std::f64::consts::FRAC_1_SQRT_2).erfc();
    assert_eq!(activate(&mut x, None, Activation::Gelu), Some(()));
    let relative = ((x.to_kind(Kind::Double) - &expected).abs() / expected.abs().clamp_min(1e-30))
        .nan_to_num(-1.0, None, None);
    assert!(relative.max().double_value(&[]) < 3e-6, "{relative}");
    assert!(x.double_value(&[0, 6]).is_nan());
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
        // Three tokens of each position, from the first block to the last.
        let tokens: Vec<i64> = (0..130).flat_map(|p| [p * 7 % 1000, 300, 999 - p]).collect();
        let mut found = vec![0.0; tokens.len()];
        for (from, width) in [(0, 300), (300, 1), (301, 699)] {
            let mut wanted = Wanted { tokens: &tokens, from, found: &mut found };
            logits(&all.narrow(1, from, width).contiguous(), &mut read, &mut wanted).unwrap();
        }
        let asked = all.gather(1, &Tensor::from_slice(&tokens).view([130, 3]), false);
        assert_eq!(apart(&Tensor::from_slice(&found).view([130, 3]), &asked), 0.0);
        let wide = all.to_kind(Kind::Double);
        let of = |f: fn(&Read) -> f32| Tensor::from_slice(&read.iter().map(f).collect::<Vec<_>>());
        assert_eq!(apart(&of(|r| r.max), &wide.amax([1i64].as_slice(), false)), 0.0);
        let total = wide.logsumexp([1i64].as_slice(), false);
        assert!(apart(&of(|r| r.max + r.sum.ln()), &total) < tolerance.min(1e-4));
    }
}

#[test]
fn of_equal_logits_the_first_is_the_highest_wherever_blocks_end() {
    for kind in [Kind::Float, Kind::BFloat16] {
        // All equal; one above; equal ones in one block of lanes, in two, and behind the last whole one; none above −∞.
        let row = |high: &[usize], low: f32| {
            let mut row = vec![low; 40];
            high.iter().for_each(|&at| row[at] = 2.0);
            row
        };
        let rows = [
            (row(&[], 1.0), 0),
            (row(&[39], 1.0), 39),
            (row(&[5, 9], 1.0), 5),
            (row(&[17, 33], 1.0), 17),
            (row(&[36, 38], -1.0), 36),
            (row(&[0, 39], -1.0), 0),
            (row(&[], f32::NEG_INFINITY), 0),
        ];
        let values: Vec<f32> = rows.iter().flat_map(|r| r.0.clone()).collect();
        let all = Tensor::from_slice(&values).view([rows.len() as i64, 40]).to_kind(kind);
        for ends in [vec![40], vec![20, 40], vec![1, 35, 37, 40]] {
            let mut read = vec![Read::NONE; rows.len()];
            let mut from = 0;
            for end in ends {
                let mut wanted = Wanted { tokens: &[], from, found: &mut [] };
                logits(&all.narrow(1, from, end - from).contiguous(), &mut read, &mut wanted).unwrap();
                from = end;
            }
            let first: Vec<i64> = read.iter().map(|r| r.first).collect();
            assert_eq!(first, rows.iter().map(|r| r.1).collect::<Vec<i64>>(), "{kind:?}");
        }
    }
}

#[test]
fn a_nan_stays_one_and_infinities_do_as_they_do_in_libtorch() {
    let with = |v: f32| {
        let mut row = vec![1.0f32; 40];
        row[17] = v;
        Tensor::from_slice(&row).view([1, 40])
    };
    let none = || Wanted { tokens: &[], from: 0, found: &mut [] };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut read = [Read::NONE];
        logits(&with(bad), &mut read, &mut none()).unwrap();
        assert!(read[0].max.is_nan() && read[0].sum.is_nan(), "{bad}");
    }
    let mut read = [Read::NONE];
    logits(&with(f32::NEG_INFINITY), &mut read, &mut none()).unwrap();
    assert!((read[0].sum - 39.0).abs() < 1e-5);
    let nans = |t: &Tensor| t.isnan().sum(Kind::Int64).int64_value(&[]);
    let gain = Tensor::ones([40], (Kind::Float, Device::Cpu));
    assert_eq!(nans(&rms(&with(f32::NAN), &gain).unwrap()), 40);
    assert_eq!(nans(&gate(&with(f32::NAN), Activation::Silu).unwrap()), 1);
}

#[test]
fn what_needs_a_gradient_or_another_format_is_left_to_libtorch() {
    let gain = Tensor::ones([4], (Kind::Float, Device::Cpu));
    let x = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
    assert!(rms(&x.copy().set_requires_grad(true), &gain).is_none());
    assert!(rms(&x.to_kind(Kind::Double), &gain.to_kind(Kind::Double)).is_none());
    assert!(rms(&x.transpose(0, 1), &Tensor::ones([2], (Kind::Float, Device::Cpu))).is_none());
    assert!(gate(&x.to_kind(Kind::Half), Activation::Silu).is_none());
}
