"""The error bar of a mean over draws: its variance, its degrees of freedom, and the interval that they make.

With b independent blocks of m draws each, the plain standard error of the mean is s / √b, where s² is the sample variance of the
block means. Two things make it too small. Few blocks: an interval then needs Student's quantile with b - 1 degrees of freedom.
And what the draws have not seen: if one draw in twenty gives another answer, ten draws miss it more often than not, and s² is
too small just then.

The remedy for the second is a *moderated variance*: empirical Bayes shrinks s² towards the variance σ² of a typical input,

    s̃² = (d₀ σ²/m + (b - 1) s²) / (d₀ + b - 1),     with d₀ + b - 1 degrees of freedom

(Smyth, "Linear models and empirical Bayes methods for assessing differential expression", 2004). σ² and d₀ are a `VariancePrior`,
measured on rows and kept with a checkpoint. Where there is none, draws that all agree get the error of one further draw with the
opposite answer, which is `UNSEEN` times as far away as zero: an outcome that k draws have not seen may have a probability of up
to 3 / k.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from .links import link_slope, link_variance

UNSEEN = 2.0
"""Distance between an answer and its opposite, in units of the answer."""
FEWEST = 8
"""Independent blocks of draws before an error bar is believed, however many draws they have."""
PRIOR_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""What d₀ is chosen from."""
_CALIBRATION_BLOCKS = 4 * FEWEST
_AGREEMENT = 100
"""Rounding errors, in units of the last digit, by which equal outputs may differ."""


class VariancePrior(NamedTuple):
    """What is known of the variance of single draws before any is made; see the module's equation."""

    variance: tuple[float, ...]
    """σ², one for every channel of the output, or a single one for all of it. Of a draw, in squared units of the output."""
    degrees_of_freedom: float
    """d₀: how many draws the prior is worth; 0 is no prior."""
    softmax_factor: float = 1.0
    """How many times as large the variance of a softmax of the channels is as if they were independent: of two classes, one of
    which is the other's negative, twice."""

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote.

        Args:
            values: A mapping with the keys `variance` (numbers), `degrees_of_freedom` (a number) and, unless it is 1,
                `softmax_factor`.

        Raises:
            ValueError: If a key is missing or unknown, or a number is negative or infinite.
            TypeError: If it is no mapping.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"variance_prior: expected a dict or None, got {type(values).__name__} {values!r}.")
        if not {"variance", "degrees_of_freedom"} <= set(values) <= set(cls._fields):
            raise ValueError(f"variance_prior: expected the keys {', '.join(cls._fields)}, got {', '.join(map(str, values))}.")
        variance, *others = ({**cls._field_defaults, **values}[name] for name in cls._fields)
        numbers: list[Any] = [*variance, *others] if isinstance(variance, list | tuple) and variance else [None]
        for number in numbers:
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not is_number or not 0 <= number <= sys.float_info.max:  # whole numbers may be larger than any real one
                raise ValueError(
                    f"variance_prior: expected finite numbers of at least 0, a list of them as variance, got {dict(values)!r}. "
                    "Measure them with lps_hf.evaluation.error_bars.calibrate_error_bars."
                )
        return cls(tuple(map(float, variance)), *map(float, others))

    def to_dict(self) -> dict[str, Any]:
        """The form in which a configuration keeps it."""
        return {**self._asdict(), "variance": list(self.variance)}


NO_PRIOR = VariancePrior((0.0,), 0.0)


def moderated_error(squares: Tensor, num_blocks: int, block_size: int, variance: Tensor | float, prior_weight: float) -> Tensor:
    """The standard error √(s̃² / b) of a mean over blocks; see the module's equation.

    Args:
        squares: Sum of the squared deviations of the block means from their mean, any shape.
        num_blocks: b, at least 2.
        block_size: m.
        variance: σ², of a shape that `squares` broadcasts with.
        prior_weight: d₀.

    Returns:
        `torch.Tensor` of the shape of `squares`.
    """
    moderated = (prior_weight * variance / block_size + squares) / (prior_weight + num_blocks - 1)
    return (moderated / num_blocks).sqrt()


def all_agree(squares: Tensor, mean: Tensor, num_blocks: int) -> Tensor:
    """Whether all blocks of an input gave the same output up to rounding, (batch,) bool.

    Args:
        squares (`torch.Tensor` of shape `(batch, *axes)`): As for `moderated_error`.
        mean (`torch.Tensor` of the same shape): The mean.
        num_blocks: b.
    """
    smallest = _AGREEMENT * torch.finfo(mean.dtype).eps * mean.detach().flatten(1).abs().amax(dim=1)
    return (squares / num_blocks).sqrt().flatten(1).amax(dim=1) <= smallest


def student_quantile(level: float, degrees_of_freedom: Tensor) -> Tensor:
    """The number t with P(|T| ≤ t) = `level` for Student's distribution.

    With T = √ν tan θ the density of θ is proportional to cos^(ν-1) θ. Its integral from 0 is concave, so that Newton's steps from
    the normal quantile, which is too small, come up to the root without passing it.

    Args:
        level: Between 0 and 1.
        degrees_of_freedom: ν ≥ 1, any shape.

    Returns:
        `torch.Tensor` float64 of the same shape, on the same device.

    Raises:
        ValueError: If the level is not between 0 and 1.
    """
    check_level("level", level)
    # Of many inputs only few differ.
    different, places = degrees_of_freedom.double().cpu().unique(return_inverse=True)
    nu = different.clamp(1, 1e6)
    normal = torch.special.ndtri(torch.full_like(nu, 0.5 + level / 2))
    points, weights = (torch.from_numpy((array + shift) / 2) for array, shift in zip(leggauss(40), (1, 0), strict=True))
    # Γ((ν+1)/2) / (√π Γ(ν/2)) makes the density of θ integrate to 1 over (-π/2, π/2).
    constant = torch.exp(torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2)) / math.pi**0.5
    theta = torch.atan(normal / nu.sqrt())
    for _ in range(50):
        powers = torch.cos(theta.unsqueeze(-1) * points) ** (nu.unsqueeze(-1) - 1)
        missing = level / 2 - constant * theta * (powers @ weights)
        theta = theta + missing / (constant * torch.cos(theta) ** (nu - 1))
    return (nu.sqrt() * torch.tan(theta))[places].view(degrees_of_freedom.shape).to(degrees_of_freedom.device)


def check_level(name: str, value: Any) -> None:
    """Refuse what is no confidence level.

    Raises:
        ValueError: If it is no number between 0 and 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, such as 0.95, got {value!r}.")


def confidence_interval(
    mean: Tensor | None, standard_error: Tensor | None, degrees_of_freedom: Tensor | None, level: float
) -> tuple[Tensor, Tensor]:
    """The interval mean ± t · standard error, which holds φ(x) in a share `level` of all repetitions.

    Args:
        mean (`torch.Tensor` of shape `(batch, *axes)`): The estimate.
        standard_error (`torch.Tensor` of the same shape): Its error bar.
        degrees_of_freedom (`torch.Tensor` of shape `(batch,)`): Those of the error bar.
        level: Between 0 and 1.

    Returns:
        Lower and upper end, each of the shape of `mean`.

    Raises:
        ValueError: If there is no error bar, or the level is not between 0 and 1.
    """
    if mean is None or standard_error is None or degrees_of_freedom is None:
        raise ValueError(
            "confidence_interval: expected an estimate with an error bar, got one without: a single sample, a single block of "
            "dependent ones, or an exact average. Take more samples; an exact average needs no interval."
        )
    quantile = student_quantile(level, degrees_of_freedom).view(-1, *[1] * (mean.dim() - 1))
    half = quantile.to(standard_error.dtype) * standard_error
    return mean - half, mean + half


def calibration_draws(num_samples: int, block_size: int) -> int:
    """The number of draws that `fit_variance_prior` is given where `num_samples` are asked for: whole blocks, and enough of them.

    Args:
        num_samples: At least 1.
        block_size: Number of draws that depend on each other.
    """
    return max(num_samples // block_size, _CALIBRATION_BLOCKS) * block_size


def fit_variance_prior(draws: Tensor, block_size: int = 1, level: float = 0.95) -> VariancePrior:
    """Choose the prior with which intervals of few draws hold the mean of many.

    σ² is the variance of a draw, averaged over the rows. d₀ is that of `PRIOR_WEIGHTS` with which the share of intervals of few
    draws that hold the mean of the others, whose own error is taken into account, comes nearest to a little more than `level`.
    It is small where rows differ much in their spread, and large where one draw in many decides.

    Args:
        draws (`torch.Tensor` of shape `(num_draws, rows, channels)`): Outputs under single draws; blocks one after another.
        block_size: Number of draws that depend on each other.
        level: Of the intervals.

    Returns:
        `VariancePrior`.

    Raises:
        ValueError: If there are fewer blocks of draws than `calibration_draws` asks for, or no row.
    """
    blocks = block_means(draws.double().transpose(0, 1), block_size).transpose(0, 1)
    if len(blocks) < _CALIBRATION_BLOCKS or not blocks[0].numel():
        raise ValueError(
            f"draws: expected at least {_CALIBRATION_BLOCKS} independent blocks of draws of at least one row, got {len(blocks)} "
            f"of {draws.shape[1]}."
        )
    variance = blocks.var(dim=0).mean(dim=0)
    counts = [count for count in (FEWEST, 2 * FEWEST, 4 * FEWEST, 8 * FEWEST) if 2 * count <= len(blocks)]
    # What is measured on few rows is uncertain itself, and an interval that errs should be too wide.
    wanted = level + (1 - level) / 5
    misses = {
        weight: max(abs(_coverage(blocks, n, variance, weight, level) - wanted) for n in counts) for weight in PRIOR_WEIGHTS
    }
    best = min(PRIOR_WEIGHTS, key=lambda weight: misses[weight])
    # A softmax sees differences of channels; to first order, at the mean of each row.
    mean = blocks.mean(dim=0)
    as_drawn = link_slope(blocks, mean.unsqueeze(0), "softmax").var(dim=0).sum()
    if_independent = link_variance(blocks.var(dim=0), mean, "softmax").sum()
    factor = (as_drawn / if_independent).item() if if_independent > 0 else 1.0
    return VariancePrior(tuple((variance * block_size).tolist()), float(best), factor)


def _coverage(blocks: Tensor, count: int, variance: Tensor, weight: float, level: float) -> float:
    """The share of intervals from `count` blocks, with a prior, that hold the mean of the other blocks."""
    parts = blocks[: len(blocks) // count * count].unflatten(0, (-1, count))
    mean = parts.mean(dim=1)
    others = (blocks.sum(dim=0) - count * mean) / (len(blocks) - count)
    squares = parts.var(dim=1) * (count - 1)
    error = moderated_error(squares, count, 1, variance, weight)
    quantile = student_quantile(level, torch.tensor([weight + count - 1.0, torch.inf]))
    known = quantile[1] * blocks.std(dim=0) / (len(blocks) - count) ** 0.5
    smallest = _AGREEMENT * torch.finfo(torch.float32).eps * others.abs()
    return ((mean - others).abs() <= torch.hypot(quantile[0] * error, known) + smallest).double().mean().item()


def probability_interval(score: Tensor, standard_error: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    """The interval of a probability, made for its log-odds, so that it stays between 0 and 1.

    Args:
        score: Probabilities, any shape.
        standard_error: Of `score`, same shape.
        quantile: Half the interval's width, in standard errors.

    Returns:
        Lower and upper end.
    """
    inside = score.double().clamp(1e-12, 1 - 1e-12)
    half = quantile * standard_error.double() / (inside * (1 - inside))
    odds = torch.logit(inside)
    return (odds - half).sigmoid().to(score.dtype), (odds + half).sigmoid().to(score.dtype)


def block_means(samples: Tensor, block_size: int) -> Tensor:
    """Means over blocks of dependent draws, (batch, num_samples, ...) to (batch, blocks, ...)."""
    return samples.unflatten(1, (-1, min(block_size, samples.shape[1]))).mean(dim=2)
