//! The Universal Scalability Law: `X(n) = λ n / (1 + σ (n - 1) + κ n (n - 1))`. λ is what one replica does, σ the share that
//! has to be done one after the other, κ the cost of every pair that has to agree.
//!
//! Fitted by least squares of relative errors with σ and κ not below zero; how sure that is comes from fitting again with the
//! deviations dealt out anew (a residual bootstrap).

/// The fewest different numbers of replicas: three parameters and something left to check them with.
pub const REPLICAS_MIN: usize = 4;
/// The fewest observations: with as many as parameters every curve fits.
pub const OBSERVATIONS_MIN: usize = 8;

/// A law that misses by more than this on average does not describe what was measured.
const ERROR_MAX: f64 = 0.1;

const RESAMPLES: usize = 1_000;
const SEED: u64 = 1;

/// The parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Law {
    /// Throughput of one replica.
    pub lambda: f64,
    /// Contention, 0 to 1.
    pub sigma: f64,
    /// Coherence.
    pub kappa: f64,
}

/// A law with the middle 90 % of what it might as well be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The best one.
    pub law: Law,
    /// The 5th percentile of each parameter by itself.
    pub low: Law,
    /// The 95th.
    pub high: Law,
    /// The root of the mean square of the relative errors.
    pub error: f64,
}

impl Fit {
    /// Whether it is near enough to what was measured to say anything.
    pub fn describes(&self) -> bool {
        self.error <= ERROR_MAX
    }
}

impl Law {
    /// Throughput of `n` replicas.
    pub fn at(&self, n: f64) -> f64 {
        self.lambda * n / (1.0 + self.sigma * (n - 1.0) + self.kappa * n * (n - 1.0))
    }

    /// The number of replicas beyond which throughput falls; `None` where nothing makes it fall.
    pub fn peak(&self) -> Option<f64> {
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt())
    }
}

/// Fits observations of replicas and throughput; `None` when there are too few, or one is not positive.
pub fn fit(observations: &[(f64, f64)]) -> Option<Fit> {
    let mut replicas: Vec<f64> = observations.iter().map(|(n, _)| *n).collect();
    replicas.sort_by(f64::total_cmp);
    replicas.dedup();
    if replicas.len() < REPLICAS_MIN || observations.len() < OBSERVATIONS_MIN {
        return None;
    }
    let law = best(observations)?;
    let errors: Vec<f64> = observations.iter().map(|(n, x)| x / law.at(*n) - 1.0).collect();
    let error = (errors.iter().map(|error| error * error).sum::<f64>() / count(errors.len())).sqrt();
    let (low, high) = bootstrap(observations, law, &errors)?;
    Some(Fit { law, low, high, error })
}

fn bootstrap(observations: &[(f64, f64)], law: Law, errors: &[f64]) -> Option<(Law, Law)> {
    let mut random = fastrand::Rng::with_seed(SEED);
    // Three parameters make deviations look smaller than they are.
    let wider = (count(errors.len()) / count(errors.len() - 3)).sqrt();
    let mut laws = Vec::new();
    for _ in 0..RESAMPLES {
        let again: Vec<(f64, f64)> = observations
            .iter()
            .map(|(n, _)| (*n, law.at(*n) * (1.0 + wider * errors[random.usize(..errors.len())]).max(0.01)))
            .collect();
        laws.extend(best(&again));
    }
    let at = |part: fn(&Law) -> f64, share: f64| {
        let mut values: Vec<f64> = laws.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        values.get((share * count(values.len().saturating_sub(1))).round() as usize).copied()
    };
    let law = |share| {
        Some(Law {
            lambda: at(|it| it.lambda, share)?,
            sigma: at(|it| it.sigma, share)?,
            kappa: at(|it| it.kappa, share)?,
        })
    };
    Some((law(0.05)?, law(0.95)?))
}

/// `n / X = a + b (n - 1) + c n (n - 1)` is linear in its parameters. Of the four cases that let `b`, `c`, both or none be
/// zero, the best that has no negative one is the constrained optimum.
fn best(observations: &[(f64, f64)]) -> Option<Law> {
    if observations.iter().any(|(_, x)| *x <= 0.0) {
        return None;
    }
    let cases: [&[usize]; 4] = [&[0, 1, 2], &[0, 1], &[0, 2], &[0]];
    let solved = cases.iter().filter_map(|columns| {
        let [a, b, c] = solve(observations, columns)?;
        let is_allowed = a > 0.0 && b >= 0.0 && c >= 0.0;
        is_allowed.then(|| Law { lambda: 1.0 / a, sigma: b / a, kappa: c / a })
    });
    let misfit = |law: &Law| observations.iter().map(|(n, x)| (x / law.at(*n) - 1.0).powi(2)).sum::<f64>();
    solved.min_by(|one, other| misfit(one).total_cmp(&misfit(other)))
}

/// The least squares of `1 - (a + b (n - 1) + c n (n - 1)) X / n` over the parameters in `columns`, the others zero.
fn solve(observations: &[(f64, f64)], columns: &[usize]) -> Option<[f64; 3]> {
    let size = columns.len();
    let mut normal = vec![vec![0.0; size + 1]; size];
    for (n, x) in observations {
        let all = [x / n, (n - 1.0) * x / n, (n - 1.0) * x];
        let row: Vec<f64> = columns.iter().map(|column| all[*column]).collect();
        for i in 0..size {
            for j in 0..size {
                normal[i][j] += row[i] * row[j];
            }
            normal[i][size] += row[i];
        }
    }
    let mut found = [0.0; 3];
    for (column, value) in columns.iter().zip(eliminate(normal)?) {
        found[*column] = value;
    }
    Some(found)
}

/// Gauss with the largest pivot; `None` when the equations do not decide.
fn eliminate(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = rows.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|i, j| rows[*i][column].abs().total_cmp(&rows[*j][column].abs()))?;
        rows.swap(column, pivot);
        let lead = rows[column].clone();
        if lead[column].abs() < 1e-12 {
            return None;
        }
        for (index, row) in rows.iter_mut().enumerate() {
            if index != column {
                let factor = row[column] / lead[column];
                row.iter_mut().zip(&lead).for_each(|(it, lead)| *it -= factor * lead);
            }
        }
    }
    Some((0..size).map(|index| rows[index][size] / rows[index][index]).collect())
}

#[expect(clippy::cast_precision_loss, reason = "a few observations")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observations(law: Law, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let replicas = [1.0, 2.0, 4.0, 8.0].into_iter().flat_map(|n| [n; 4]);
        replicas.map(|n| (n, law.at(n) * (1.0 + noise * (random.f64() * 2.0 - 1.0)))).collect()
    }

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= 1e-6 * wanted.abs().max(1.0)
    }

    #[test]
    fn a_law_without_noise_is_found_again() {
        for law in [
            Law { lambda: 800.0, sigma: 0.2, kappa: 0.01 },
            Law { lambda: 800.0, sigma: 0.3, kappa: 0.0 },
            Law { lambda: 50.0, sigma: 0.0, kappa: 0.05 },
            Law { lambda: 1e4, sigma: 0.0, kappa: 0.0 },
        ] {
            let fit = fit(&observations(law, 0.0, 5)).unwrap();

            assert!(near(fit.law.lambda, law.lambda) && near(fit.law.sigma, law.sigma), "{fit:?}");
            assert!(near(fit.law.kappa, law.kappa) && fit.error < 1e-6, "{fit:?}");
        }
    }

    #[test]
    fn most_intervals_hold_the_law() {
        let law = Law { lambda: 800.0, sigma: 0.2, kappa: 0.02 };
        let holds = |seed: &u64| {
            let fit = fit(&observations(law, 0.05, *seed)).unwrap();
            (fit.low.sigma..=fit.high.sigma).contains(&law.sigma)
        };

        let held = (0..40).filter(holds).count();

        // 36 are meant to; a bootstrap of few observations is a little too sure of itself.
        assert!((29..=40).contains(&held), "{held}");
    }

    #[test]
    fn the_interval_grows_with_the_noise() {
        let law = Law { lambda: 800.0, sigma: 0.2, kappa: 0.02 };
        let width = |noise| {
            let fit = fit(&observations(law, noise, 5)).unwrap();
            fit.high.sigma - fit.low.sigma
        };

        assert!(width(0.1) > 2.0 * width(0.02));
    }

    #[test]
    fn parameters_are_never_negative() {
        let better_than_linear = [(1.0, 10.0), (2.0, 25.0), (4.0, 60.0), (8.0, 130.0)].repeat(2);

        let law = fit(&better_than_linear).unwrap().law;

        assert!(near(law.sigma, 0.0) && near(law.kappa, 0.0), "{law:?}");
    }

    #[test]
    fn too_few_points_are_not_fitted() {
        let law = Law { lambda: 800.0, sigma: 0.2, kappa: 0.01 };
        let all = observations(law, 0.0, 5);

        assert_eq!(fit(&all[..12]), None);
        assert_eq!(fit(&[1.0, 2.0, 4.0, 8.0].map(|n| (n, law.at(n)))), None);
        assert_eq!(fit(&[&all[..], &[(16.0, 0.0)]].concat()), None);
    }

    #[test]
    fn the_peak_is_where_throughput_begins_to_fall() {
        let law = Law { lambda: 1.0, sigma: 0.0, kappa: 0.0625 };

        assert_eq!(law.peak(), Some(4.0));
        assert!(law.at(4.0) > law.at(3.9) && law.at(4.0) > law.at(4.1));
        assert_eq!(Law { kappa: 0.0, ..law }.peak(), None);
    }
}
