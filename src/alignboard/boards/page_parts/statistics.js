// The paired difference of two models, as alignboard.stats.paired computes it.
const logGamma = (x) => {
  const g = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
  ];
  const t = x + 6.5;
  let sum = g[0];
  for (let k = 1; k < 9; k += 1) sum += g[k] / (x - 1 + k);
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
};

// Regularised incomplete beta function by its continued fraction (Numerical Recipes, section 6.4).
const incompleteBeta = (a, b, x) => {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(b, a, 1 - x);
  const tiny = 1e-300;
  let c = 1;
  let d = 1 / (1 - ((a + b) * x) / (a + 1) || tiny);
  let h = d;
  for (let m = 1; m < 10000; m += 1) {
    let step = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / (1 + step * d || tiny);
    c = 1 + step / c || tiny;
    h *= d * c;
    step = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / (1 + step * d || tiny);
    c = 1 + step / c || tiny;
    h *= d * c;
    if (Math.abs(d * c - 1) < 1e-16) break;
  }
  const front = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x);
  return (Math.exp(front) * h) / a;
};

// Two-sided p value of Student's t.
const studentP = (t, df) => incompleteBeta(df / 2, 0.5, df / (df + t * t));

const studentQuantile = (level, df) => {
  let [low, high] = [0, 2];
  while (studentP(high, df) > 1 - level) high *= 2;
  for (let k = 0; k < 200; k += 1) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (studentP(middle, df) > 1 - level) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
};

// Limits that hold where nearly no prompt moved beyond half of the scale in one direction (`_corner` there).
const corner = (deltas, mean, level) => {
  const open = 1 - ((1 - level) / 2) ** (1 / deltas.length);
  return [
    deltas.some((d) => d < -0.5) ? mean : mean - (1 + mean) * open,
    deltas.some((d) => d > 0.5) ? mean : mean + (1 - mean) * open,
  ];
};

// The level at which those limits reach 0 (`corner_p_values` there).
const cornerP = (deltas, mean) =>
  deltas.some((d) => d * Math.sign(mean) < -0.5) ? 0 : Math.min(1, 2 * (1 + Math.abs(mean)) ** -deltas.length);

// Mean of a - b over the prompts where both have a score in [0, 1]; null marks a missing one.
const pairedDifference = (a, b, level = 0.95) => {
  const deltas = a.map((x, k) => (x === null || b[k] === null ? null : x - b[k])).filter((d) => d !== null);
  const n = deltas.length;
  if (n === 0) return { n };
  const mean = deltas.reduce((sum, d) => sum + d, 0) / n;
  const squares = deltas.reduce((sum, d) => sum + ((d - mean) / n) ** 2, 0);
  const error = n > 1 ? Math.sqrt((n / (n - 1)) * squares) : 0;
  const counts = {
    n, estimate: mean, above: deltas.filter((d) => d > 0).length, below: deltas.filter((d) => d < 0).length,
  };
  if (!(error > 1e-14)) return counts;
  const reach = studentQuantile(level, n - 1) * error;
  const [least, most] = corner(deltas, mean, level);
  return {
    ...counts, error, p: Math.max(studentP(mean / error, n - 1), cornerP(deltas, mean)),
    low: Math.max(-1, Math.min(mean - reach, least)), high: Math.min(1, Math.max(mean + reach, most)),
  };
};
