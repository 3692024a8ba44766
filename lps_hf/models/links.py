"""Inverse links: what an averaged output means, and how a small change or a variance of it goes through."""

from torch import Tensor

LINKS = ("identity", "sigmoid", "softmax")


def apply_link(mean: Tensor, link: str) -> Tensor:
    """What an averaged output means: itself (`"identity"`), its `"sigmoid"`, or its `"softmax"` over the last axis.

    Raises:
        ValueError: If there is no such link.
    """
    _check_link(link)
    if link == "sigmoid":
        return mean.sigmoid()
    return mean.softmax(dim=-1) if link == "softmax" else mean


def link_slope(change: Tensor, mean: Tensor, link: str) -> Tensor:
    """The derivative of a link at `mean`, applied to a small `change` of it."""
    _check_link(link)
    if link == "sigmoid":
        return change * (mean.sigmoid() * (-mean).sigmoid())
    if link == "softmax":
        probability = mean.softmax(dim=-1)
        return probability * (change - (probability * change).sum(dim=-1, keepdim=True))
    return change


def link_variance(variance: Tensor, mean: Tensor, link: str) -> Tensor:
    """The variance of a link to first order, where the entries of its argument vary independently."""
    _check_link(link)
    if link == "sigmoid":
        return variance * (mean.sigmoid() * (-mean).sigmoid()).square()
    if link == "softmax":
        # The Jacobian's rows, squared: p_i² (δ_ij - p_j)².
        probability = mean.softmax(dim=-1)
        others = (probability.square() * variance).sum(dim=-1, keepdim=True)
        return probability.square() * (others + (1 - 2 * probability) * variance).clamp(min=0)
    return variance


def _check_link(link: str) -> None:
    if link not in LINKS:
        raise ValueError(f"link: expected one of {', '.join(map(repr, LINKS))}, got {link!r}.")
