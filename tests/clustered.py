"""Simulated test sets of clustered rows whose true mean is known: sums per contract, one column a data set.

Contracts differ in size (log-normal, mostly 10 to 50 rows) and in difficulty: a contract's own rate is drawn from a
beta distribution, with `icc` the intra-contract correlation of its rows.
"""

import numpy as np

SETS = 2000  # so a coverage of 0.95 is measured with a standard error of 0.005


def sizes(rng, contracts, sets=SETS):
    return np.clip(np.round(rng.lognormal(np.log(20), 0.5, (contracts, sets))), 1, 80).astype(int)


def rates(rng, contracts, mean, icc, sets=SETS):
    spread = (1 - icc) / icc
    return rng.beta(mean * spread, (1 - mean) * spread, (contracts, sets))


def share(contracts, mean, icc, seed=0):
    """Rows of 0 and 1."""
    rng = np.random.default_rng([contracts, seed])
    rows = sizes(rng, contracts)
    return rng.binomial(rows, rates(rng, contracts, mean, icc)), rows, mean


def f1(contracts, zeros, ones, icc, seed=0):
    """Rows that are 0, 1, or in between with mean 0.4; contracts differ in the share of ones among the extremes."""
    rng = np.random.default_rng([contracts, seed])
    rows = sizes(rng, contracts)
    between = rng.binomial(rows, 1 - zeros - ones)
    right = rng.binomial(rows - between, rates(rng, contracts, ones / (zeros + ones), icc))
    partly = rng.beta(2 * np.maximum(between, 1), 3 * np.maximum(between, 1))
    return right + between * partly, rows, ones + 0.4 * (1 - zeros - ones)


def micro(contracts, mean, icc, seed=0):
    """Hits over counts, where a contract with a higher rate also has more counts: 0.3 to 0.7 a row."""
    rng = np.random.default_rng([contracts, seed])
    rate = rates(rng, contracts, mean, icc)
    counts = rng.poisson(sizes(rng, contracts) * (0.3 + 0.4 * rate))
    squares = mean**2 + mean * (1 - mean) * icc  # E[rate^2]
    return rng.binomial(counts, rate), counts, (0.3 * mean + 0.4 * squares) / (0.3 + 0.4 * mean)


def seconds(contracts, seed=0):
    """Skewed times with mean exp(0.25 ** 2 / 2) * 3: contracts' own means are log-normal, rows exponential."""
    rng = np.random.default_rng([contracts, seed])
    rows = sizes(rng, contracts)
    means = 3 * rng.lognormal(0, 0.25, rows.shape)
    return rng.gamma(rows, means), rows, 3 * np.exp(0.25**2 / 2)


def pair(contracts, difference, icc, seed=0):
    """Two systems that disagree on 3 rows of 10; which of them is right then depends on the contract."""
    rng = np.random.default_rng([contracts, seed])
    rows = sizes(rng, contracts)
    apart = rng.binomial(rows, rates(rng, contracts, 0.3, icc))
    better = rng.binomial(apart, rates(rng, contracts, 0.5 + difference / 0.6, icc))
    both = rng.binomial(rows - apart, 0.5)
    return np.stack([both + better, both + apart - better]), np.stack([rows, rows]), difference


def micro_pair(contracts, rate, icc, seed=0):
    """Two systems with the same rate, one of which answers with more spans: 0.8 against 0.5 a row."""
    rng = np.random.default_rng([contracts, seed])
    rows, rate = sizes(rng, contracts), rates(rng, contracts, rate, icc)
    counts = np.stack([rng.poisson(rows * 0.8), rng.poisson(rows * 0.5)])
    return rng.binomial(counts, rate), counts, 0


def covered(low, high, truth):
    return float(np.mean((low <= truth) & (truth <= high)))
