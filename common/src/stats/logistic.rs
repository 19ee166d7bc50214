//! Multinomial logistic regression, as scikit-learn's `LogisticRegression` fits it: minimises
//! C · Σᵢ −log p(yᵢ | xᵢ) + ½ ‖W‖², biases not penalised, with one row of weights where there are two classes
//! and one per class otherwise.
//!
//! By Newton's method with conjugate gradients for each step [Nocedal & Wright 2006, ch. 7.1], preconditioned by
//! the Hessian's diagonal, to a gradient of rounding's size; the problem is convex, so that the answer doesn't
//! depend on the way. One thread and a fixed order of sums: equal inputs give equal bits.

/// Why nothing could be fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A class that no example has, or fewer than two classes.
    #[error("class {0} has no example")]
    NoExample(usize),
    /// A number that isn't finite.
    #[error("an embedding isn't finite")]
    NotFinite,
    /// The gradient didn't vanish.
    #[error("the fit doesn't converge: embeddings of very unlike sizes")]
    NotConverged,
}

/// A fitted classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Weights, class by class: `[classes][width]`. Of two classes the first has 0.
    pub weights: Vec<Vec<f64>>,
    /// Bias of each class. Of two classes the first has 0; of more they sum to 0.
    pub bias: Vec<f64>,
}

impl Fitted {
    /// The logit of each class for an example `x [width]`.
    #[must_use]
    pub fn logits(&self, x: &[f64]) -> Vec<f64> {
        self.weights.iter().zip(&self.bias).map(|(w, b)| dot(w, x) + b).collect()
    }
}

/// Newton steps, and conjugate-gradient steps of each, at most.
const STEPS: (usize, usize) = (200, 1000);

/// Fits `labels` (from 0, below `classes`) to `x`, the examples one after another, `[examples][width]`.
///
/// # Errors
/// See [`Error`].
pub fn fit(x: &[f64], width: usize, labels: &[u32], classes: usize, c: f64) -> Result<Fitted, Error> {
    if !x.iter().all(|v| v.is_finite()) {
        return Err(Error::NotFinite);
    }
    let absent = (0..classes.max(2)).find(|&k| !labels.iter().any(|&l| l as usize == k));
    if let Some(k) = absent {
        return Err(Error::NoExample(k));
    }
    let rows = if classes == 2 { 1 } else { classes };
    let problem = Problem { x, width, labels, rows, c };
    let theta = problem.minimise()?;
    let mut each: Vec<(Vec<f64>, f64)> =
        theta.chunks(width + 1).map(|row| (row[..width].to_vec(), row[width])).collect();
    if classes == 2 {
        each.insert(0, (vec![0.0; width], 0.0));
    } else {
        // Nothing decides their mean.
        let mean = each.iter().map(|e| e.1).sum::<f64>() / classes as f64;
        each.iter_mut().for_each(|e| e.1 -= mean);
    }
    let (weights, bias) = each.into_iter().unzip();
    Ok(Fitted { weights, bias })
}

/// Parameters are rows of weights with their bias behind: `[rows][width + 1]`.
struct Problem<'a> {
    x: &'a [f64],
    width: usize,
    labels: &'a [u32],
    rows: usize,
    c: f64,
}

/// What the parameters give: the objective, its gradient, and p of each example and row.
struct Point {
    value: f64,
    gradient: Vec<f64>,
    p: Vec<f64>,
}

impl Problem<'_> {
    fn examples(&self) -> impl Iterator<Item = &[f64]> {
        self.x.chunks_exact(self.width)
    }

    /// Logit of each row for `x`.
    fn apply<'t>(&self, theta: &'t [f64], x: &'t [f64]) -> impl Iterator<Item = f64> + 't {
        let width = self.width;
        theta.chunks_exact(width + 1).map(move |row| dot(&row[..width], x) + row[width])
    }

    /// Adds C · Σᵢ rᵢₖ (xᵢ, 1) of residuals `r [examples][rows]` to each row k, and the penalty's part of `theta`.
    fn gather(&self, r: &[f64], theta: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; theta.len()];
        for (x, r) in self.examples().zip(r.chunks_exact(self.rows)) {
            for (row, r) in out.chunks_exact_mut(self.width + 1).zip(r) {
                row[..self.width].iter_mut().zip(x).for_each(|(o, x)| *o += r * x);
                row[self.width] += r;
            }
        }
        for (row, own) in out.chunks_exact_mut(self.width + 1).zip(theta.chunks_exact(self.width + 1)) {
            row[..self.width].iter_mut().zip(own).for_each(|(o, t)| *o = self.c * *o + t);
            row[self.width] *= self.c;
        }
        out
    }

    fn at(&self, theta: &[f64]) -> Point {
        let (mut loss, mut p) = (0.0, Vec::with_capacity(self.labels.len() * self.rows));
        let mut r = Vec::with_capacity(p.capacity());
        for (x, &label) in self.examples().zip(self.labels) {
            let logits: Vec<f64> = self.apply(theta, x).collect();
            // One row stands against a logit of 0.
            let rest = if self.rows == 1 { 0.0 } else { f64::NEG_INFINITY };
            let max = logits.iter().copied().fold(rest, f64::max);
            let total = logits.iter().map(|l| (l - max).exp()).sum::<f64>() + (rest - max).exp();
            let log = max + total.ln();
            for (k, logit) in logits.iter().enumerate() {
                let right = if self.rows == 1 { label == 1 } else { label as usize == k };
                let share = (logit - log).exp();
                p.push(share);
                r.push(share - f64::from(u8::from(right)));
            }
            let own = if self.rows == 1 {
                if label == 1 { logits[0] } else { 0.0 }
            } else {
                logits[label as usize]
            };
            loss += log - own;
        }
        let penalty: f64 =
            theta.chunks_exact(self.width + 1).map(|row| dot(&row[..self.width], &row[..self.width])).sum();
        Point { value: self.c * loss + 0.5 * penalty, gradient: self.gather(&r, theta), p }
    }

    /// The Hessian at `point` times `v`.
    fn curved(&self, point: &Point, v: &[f64]) -> Vec<f64> {
        let mut r = Vec::with_capacity(point.p.len());
        for (x, p) in self.examples().zip(point.p.chunks_exact(self.rows)) {
            let u: Vec<f64> = self.apply(v, x).collect();
            let mean = dot(p, &u);
            r.extend(p.iter().zip(&u).map(|(p, u)| p * (u - mean)));
        }
        self.gather(&r, v)
    }

    /// The Hessian's diagonal.
    fn diagonal(&self, point: &Point) -> Vec<f64> {
        let mut out = vec![0.0; self.rows * (self.width + 1)];
        for (x, p) in self.examples().zip(point.p.chunks_exact(self.rows)) {
            for (row, p) in out.chunks_exact_mut(self.width + 1).zip(p) {
                let r = self.c * p * (1.0 - p);
                row[..self.width].iter_mut().zip(x).for_each(|(o, x)| *o += r * x * x);
                row[self.width] += r;
            }
        }
        for row in out.chunks_exact_mut(self.width + 1) {
            row[..self.width].iter_mut().for_each(|o| *o += 1.0);
        }
        // A bias of saturated examples only has next to no curvature of its own.
        out.iter().map(|&d| if d > f64::MIN_POSITIVE { d } else { 1.0 }).collect()
    }

    /// Solves H s = −g to within `tolerance` of |g|.
    fn step(&self, point: &Point, tolerance: f64) -> Vec<f64> {
        let diagonal = self.diagonal(point);
        let scaled = |r: &[f64]| -> Vec<f64> { r.iter().zip(&diagonal).map(|(r, d)| r / d).collect() };
        let mut s = vec![0.0; point.gradient.len()];
        let mut r: Vec<f64> = point.gradient.iter().map(|g| -g).collect();
        let mut z = scaled(&r);
        let mut d = z.clone();
        let (mut rz, limit) = (dot(&r, &z), tolerance * dot(&r, &r).sqrt());
        for _ in 0..STEPS.1 {
            let hd = self.curved(point, &d);
            let along = dot(&d, &hd);
            // Flat along d but for rounding.
            if along.is_nan() || along <= 1e-14 * dot(&d, &d) {
                break;
            }
            let a = rz / along;
            s.iter_mut().zip(&d).for_each(|(s, d)| *s += a * d);
            r.iter_mut().zip(&hd).for_each(|(r, h)| *r -= a * h);
            if dot(&r, &r).sqrt() <= limit {
                break;
            }
            z = scaled(&r);
            let next = dot(&r, &z);
            let b = next / rz;
            rz = next;
            d.iter_mut().zip(&z).for_each(|(d, z)| *d = z + b * *d);
        }
        s
    }

    fn minimise(&self) -> Result<Vec<f64>, Error> {
        let mut theta = vec![0.0; self.rows * (self.width + 1)];
        let mut point = self.at(&theta);
        let first = largest(&point.gradient).max(1.0);
        for _ in 0..STEPS.0 {
            let size = largest(&point.gradient);
            if size <= 1e-13 * first {
                break;
            }
            let s = self.step(&point, (size / first).sqrt().clamp(1e-8, 0.1));
            let slope = dot(&s, &point.gradient);
            let mut t = 1.0;
            let better = loop {
                let next: Vec<f64> = theta.iter().zip(&s).map(|(x, s)| x + t * s).collect();
                let there = self.at(&next);
                // Where differences of the objective drown in rounding, the gradient tells.
                let told = slope.abs() > 1e-10 * point.value.abs();
                let falls = there.value <= point.value + 1e-4 * t * slope;
                if if told { falls } else { largest(&there.gradient) < 0.9 * size } {
                    break Some((next, there));
                }
                t *= 0.5;
                if t < 1e-8 {
                    break None;
                }
            };
            let Some(better) = better else { break };
            (theta, point) = better;
        }
        if largest(&point.gradient) <= 1e-9 * first { Ok(theta) } else { Err(Error::NotConverged) }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |m: f64, x| if x.is_nan() { f64::INFINITY } else { m.max(x.abs()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of `classes` clouds, by a fixed rule.
    fn clouds(classes: u32, n: u32, width: u32, scale: f64) -> (Vec<f64>, Vec<u32>) {
        let labels: Vec<u32> = (0..n).map(|i| (i * i + i / 3) % classes).collect();
        let noise = |i: u32, j: u32| f64::from((i * 7919 + j * 104_729 + i * j * 31) % 1000) / 500.0 - 1.0;
        let x = (0..n)
            .flat_map(|i| (0..width).map(move |j| (i, j)))
            .map(|(i, j)| {
                scale * (noise(i, j) + 0.7 * f64::from(u8::from(labels[i as usize] == j % classes)))
            })
            .collect();
        (x, labels)
    }

    /// The objective by its definition.
    fn objective(f: &Fitted, x: &[f64], width: usize, labels: &[u32], c: f64) -> f64 {
        let loss: f64 = x
            .chunks(width)
            .zip(labels)
            .map(|(x, &l)| {
                let z = f.logits(x);
                z.iter().map(|v| v.exp()).sum::<f64>().ln() - z[l as usize]
            })
            .sum();
        c * loss + 0.5 * f.weights.iter().flatten().map(|w| w * w).sum::<f64>()
    }

    #[test]
    fn no_step_in_any_direction_lowers_the_objective() {
        for (classes, width, c, scale) in
            [(2, 3, 1.0, 1.0), (3, 4, 1.0, 1.0), (5, 7, 0.3, 4.0), (2, 6, 1.0, 30.0)]
        {
            let (x, labels) = clouds(classes as u32, 60, width as u32, scale);
            let f = fit(&x, width, &labels, classes, c).unwrap();
            assert_eq!(f, fit(&x, width, &labels, classes, c).unwrap(), "the same bits again");
            let best = objective(&f, &x, width, &labels, c);
            for k in usize::from(classes == 2)..classes {
                for j in 0..=width {
                    let slope = |h: f64| {
                        let mut moved = f.clone();
                        if j < width {
                            moved.weights[k][j] += h;
                        } else {
                            moved.bias[k] += h;
                        }
                        objective(&moved, &x, width, &labels, c)
                    };
                    let h = 1e-4 / scale;
                    assert!(slope(h) >= best && slope(-h) >= best, "{classes} {k} {j}");
                    let derivative = (slope(h) - slope(-h)) / (2.0 * h);
                    assert!(derivative.abs() < 1e-5 * scale, "{classes} {k} {j}: {derivative:e}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_an_error() {
        assert_eq!(fit(&[1.0, 2.0], 1, &[0, 0], 2, 1.0), Err(Error::NoExample(1)));
        assert_eq!(fit(&[1.0, 2.0, 3.0], 1, &[0, 2, 2], 3, 1.0), Err(Error::NoExample(1)));
        assert_eq!(fit(&[], 1, &[], 1, 1.0), Err(Error::NoExample(0)));
        assert_eq!(fit(&[1.0, f64::NAN], 1, &[0, 1], 2, 1.0), Err(Error::NotFinite));
        // Separable and far apart: the penalty keeps it finite.
        let f = fit(&[-1e4, 1e4], 1, &[0, 1], 2, 1.0).unwrap();
        assert!(f.weights[1][0] > 0.0 && f.logits(&[1e4])[1] > 5.0, "{f:?}");
    }
}
