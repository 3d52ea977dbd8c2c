"""How often unrelated curves seem to correlate, and how often related ones are found.

    python -m tools.simulate_correlation            # prints the table of docs/coverage.md

Pairs of curves are drawn, and measured as `confirm` measures a score against accuracy. *False*: of two
that have nothing to do with each other, the interval leaves out 0. *Power*: of two that share one
signal, each with white noise of a third of its standard deviation (a correlation of 0.9), it does.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ckptsel.confirmation.agreement import measure_agreement
from ckptsel.results.confirmation import MEASURES, Agreement

N_PAIRS = 1000
LENGTHS = (8, 15, 30)
NOISE = 1 / 3
"""Standard deviation of the noise on a shared signal, over that of the signal."""

Curve = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Curve]


def white_noise(random: np.random.Generator, n: int) -> Curve:
    return random.standard_normal(n)


def random_walk(random: np.random.Generator, n: int) -> Curve:
    return random.standard_normal(n).cumsum()


def autoregressive(phi: float) -> Draw:
    """Stationary, of first order."""

    def draw(random: np.random.Generator, n: int) -> Curve:
        values = random.standard_normal(n)
        values[0] /= np.sqrt(1 - phi**2)
        for i in range(1, n):
            values[i] += phi * values[i - 1]
        return values

    return draw


def rise_and_fall(noise: float) -> Draw:
    """Up in a straight line to a peak anywhere, and down to where it began; height 1."""

    def draw(random: np.random.Generator, n: int) -> Curve:
        time, peak = np.linspace(0, 1, n), random.uniform(0.1, 0.9)
        return _with_noise(np.minimum(time / peak, (1 - time) / (1 - peak)), noise, random)

    return draw


def learn_and_overtrain(noise: float) -> Draw:
    """Exponential approach to a limit, fast or slow, less a slow loss; height 1."""

    def draw(random: np.random.Generator, n: int) -> Curve:
        time = np.linspace(0, 1, n)
        span, loss = np.exp(random.uniform(*np.log([0.05, 0.5]))), random.uniform(0, 1)
        curve = 1 - np.exp(-time / span) - loss * time
        return _with_noise(curve / np.ptp(curve), noise, random)

    return draw


def smooth(noise: float) -> Draw:
    """A Gaussian process with a length of three tenths of the curve."""

    def draw(random: np.random.Generator, n: int) -> Curve:
        time = np.linspace(0, 1, n)
        covariance = np.exp(-0.5 * ((time[:, None] - time) / 0.3) ** 2) + 1e-10 * np.eye(n)
        return _with_noise(
            np.linalg.cholesky(covariance) @ random.standard_normal(n), noise, random
        )

    return draw


def _with_noise(curve: Curve, noise: float, random: np.random.Generator) -> Curve:
    return curve + noise * random.standard_normal(len(curve))


KINDS: dict[str, Draw] = {
    "white noise": white_noise,
    "AR(1), 0.5": autoregressive(0.5),
    "AR(1), 0.9": autoregressive(0.9),
    "AR(1), -0.9": autoregressive(-0.9),
    "random walk": random_walk,
    "rise and fall, noise 0.02": rise_and_fall(0.02),
    "rise and fall, noise 0.1": rise_and_fall(0.1),
    "learn and over-train, noise 0.02": learn_and_overtrain(0.02),
    "learn and over-train, noise 0.1": learn_and_overtrain(0.1),
    "smooth, noise 0.1": smooth(0.1),
}


def unrelated(draw: Draw, n: int, random: np.random.Generator) -> tuple[Curve, Curve]:
    return draw(random, n), draw(random, n)


def related(draw: Draw, n: int, random: np.random.Generator) -> tuple[Curve, Curve]:
    signal = draw(random, n)
    noise = NOISE * signal.std()
    return _with_noise(signal, noise, random), _with_noise(signal, noise, random)


def simulate(
    pair: Callable[[Draw, int, np.random.Generator], tuple[Curve, Curve]],
    draw: Draw,
    n: int,
    n_pairs: int,
    seed: int = 0,
) -> list[Agreement]:
    """The agreement of so many pairs of n checkpoints."""
    random = np.random.default_rng((seed, n))
    agreements = []
    for _ in range(n_pairs):
        x, y = pair(draw, n, random)
        agreements.append(measure_agreement({"score": x}, y)["score"])
    return agreements


def share_without_zero(agreements: list[Agreement], measure: str) -> float:
    """The part whose interval leaves out 0."""
    bounds = np.array([getattr(agreement, measure).bounds for agreement in agreements])
    return float(((bounds[:, 0] > 0) | (bounds[:, 1] < 0)).mean())


def table_rows(n_pairs: int = N_PAIRS) -> Iterator[str]:
    """The table in Markdown, a line after the other; shares in percent."""
    names = [name.replace("_", " ") for name in MEASURES]
    columns = ["curves", "checkpoints", "effective, median"]
    columns += [f"{what}, {name}" for what in ("false", "power") for name in names]
    yield f"| {' | '.join(columns)} |"
    yield "|" + " --- |" * len(columns)
    for name, draw in KINDS.items():
        for n in LENGTHS:
            found = [simulate(pair, draw, n, n_pairs) for pair in (unrelated, related)]
            effective = np.median([a.n_effective for a in found[0]])
            shares = [
                f"{100 * share_without_zero(agreements, measure):.1f}"
                for agreements in found
                for measure in MEASURES
            ]
            yield f"| {name} | {n} | {effective:.1f} | {' | '.join(shares)} |"


def main() -> None:
    for row in table_rows():
        sys.stdout.write(row + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
