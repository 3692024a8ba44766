"""Which network q(x, ε) scores the elements of which group: the adapters between a batch of fields and the networks."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .field_types import checked_value
from .group import Group
from .image_interface import ImageInterface
from .interface_networks import SMALLEST_TOLERANCE, GINInterface
from .orthogonal_groups import EuclideanGroup, OrthogonalGroup, SpecialEuclideanGroup, SpecialOrthogonalGroup, frame_length
from .plane_groups import CyclicGroup, DihedralGroup, PlaneGroup
from .representations import AXIS_MEANINGS, EXAMPLE_FIELDS, Batch, Field, Representation
from .samplers import INDEPENDENT, Sampler
from .symmetric_group import SymmetricGroup
from .vector_neurons import VectorNeuronInterface

# Relative errors of numbers in double precision, which were computed too.
SMALLEST_ROUNDING = 1e-12
# How much larger errors may be than those of the data: of scores relative to their size, of what a network compares on its
# way to them relative to the size of what is subtracted.
ROUNDING_GROWTH, CHOICE_GROWTH = 100, 10
# How much larger an error of the data may be than one along a random direction seems.
ERROR_MARGIN = 16


class Interface(Protocol):
    """What a distribution asks of a network."""

    noise_axes: Representation | None
    """Axes of the noise that the network reads; `None` where noise enters on its scores."""

    def draw_noise(
        self, batch: Batch, num_samples: int, generator: torch.Generator | None, sampler: Sampler = INDEPENDENT
    ) -> Tensor:
        """Draw that noise from a law that the group leaves unchanged, `(batch, num_samples, *noise_axes)`.

        The draws are independent, or those of one group of the sampler.
        """
        ...

    def scores(self, batch: Batch, noise: Tensor | None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Scores of every factor of the group by its name, `(batch, num_samples, *axes)`; one sample without noise.

        `dtype` is what they are computed in; by default the network's own. Scores of permutations and finite elements, which are
        constant almost everywhere, have a gradient with respect to the parameters only: that of the straight-through estimator
        would make the gradient with respect to x another one than the output's.
        """
        ...

    def tolerances(self, batch: Batch, scores: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the error of the data becomes in scores without noise, as `Group.project` wants it, by the factors' names.

        Args:
            batch: What was scored.
            scores: Its scores.
            noise: That of all factors, with which the tolerances may vary as the scores do.
        """
        ...


def call_in(dtype: torch.dtype | None, network: nn.Module, *args: Any, trains: bool = True) -> Any:
    """Call a network with its weights in another precision, and leave it as it is; `None` for its own.

    Where it `trains`, its statistics are those of training, and follow the batch.
    """
    if dtype is None:
        return network(*args)
    copies = {
        # Copies even where nothing is converted: in training mode statistics and their counter are written to.
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    result = functional_call(network, copies, args)
    if trains and network.training and torch.is_grad_enabled():
        for name, buffer in network.named_buffers():
            buffer.copy_(copies[name])
    return result


def _largest_term(scores: Tensor, bias: Tensor) -> Tensor:
    """The size of scores (batch, num_samples, n) without what is added to all of them, (batch, num_samples, 1)."""
    return (scores.detach() - bias.detach()).abs().amax(dim=-1, keepdim=True).double()


def vector_errors(batch: Batch, inputs: Mapping[str, Representation]) -> Tensor:
    """How far a number of each field of vectors or points may be from the true one, (batch, fields).

    The error is relative to the field's largest number as it was given: of points far from the origin few digits are left when
    they are centred.
    """
    names = vector_inputs(inputs)
    largest = [dense_field(batch, name).detach().abs().flatten(1).amax(dim=1).double() for name in names]
    return max(batch.rounding, SMALLEST_ROUNDING) * torch.stack(largest, dim=1)


def centroid(batch: Batch, inputs: Mapping[str, Representation]) -> Tensor:
    """The mean position of the nodes, (batch, d), of the first field with a point axis and at most one node axis."""
    name, representation = next((name, axes) for name, axes in vector_inputs(inputs).items() if axes.count("p"))
    points = vector_channels(batch.fields[name], representation)
    if not representation.count("n"):
        return points.mean(dim=(1, 3))
    weights = batch.node_mask.to(points.dtype)
    total = (points.mean(dim=3) * weights.unsqueeze(-1)).sum(dim=1)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)


def vector_inputs(inputs: Mapping[str, Representation]) -> dict[str, Representation]:
    """The fields with a vector or point axis and at most one node axis: those that frames and networks read vectors from."""
    vectors = {name: axes for name, axes in inputs.items() if axes.letters & {"v", "p"} and axes.count("n") <= 1}
    return {name: axes for name, axes in vectors.items() if axes.letters <= {"n", "v", "p"}}


def image_inputs(inputs: Mapping[str, Representation]) -> dict[str, Representation]:
    """The fields that are one image, its channels first: those that networks read."""
    return {name: axes for name, axes in inputs.items() if axes.axes[-2:] == ("h", "w") and axes.letters == {"h", "w"}}


def vector_channels(field: Field, representation: Representation) -> Tensor:
    """A field (batch, *axes) with one vector or point axis and at most one node axis as (batch, nodes or 1, d, channels)."""
    vector = next(place for place, axis in enumerate(representation.axes) if axis in ("v", "p"))
    order = [*(place for place, axis in enumerate(representation.axes) if axis == "n"), vector]
    order += [place for place, axis in enumerate(representation.axes) if isinstance(axis, int)]
    assert isinstance(field, Tensor)  # edge lists hold no vectors
    moved = field.permute(0, *(1 + place for place in order))
    moved = moved if representation.count("n") else moved.unsqueeze(1)
    return moved if moved.dim() == 4 else moved.unsqueeze(-1)


def node_channels(field: Tensor, representation: Representation) -> Tensor:
    """A field (batch, *axes) with one node axis and no other letter as (batch, nodes, channels)."""
    moved = field.movedim(1 + representation.axes.index("n"), 1)
    return moved if moved.dim() == 3 else moved.unsqueeze(-1)


def dense_field(batch: Batch, name: str) -> Tensor:
    """A field that is no edge list."""
    field = batch.fields[name]
    assert isinstance(field, Tensor)
    return field


class GraphInterface(GINInterface):
    """GIN for S_n: scores nodes from the fields with one node axis and the edge list; Uniform(0, 1) noise on the features."""

    options = {"num_layers": 3, "hidden_size": 64, "dropout": 0.0}

    def __init__(self, group: Group, inputs: Mapping[str, Representation], **options: Any) -> None:
        self.inputs = {name: axes for name, axes in inputs.items() if axes.count("n") == 1 and axes.letters == {"n"}}
        channels = sum(axes.num_channels for axes in self.inputs.values())
        super().__init__(max(channels, 1), **options)
        self.noise_axes = Representation(("n", max(channels, 1)))

    def draw_noise(
        self, batch: Batch, num_samples: int, generator: torch.Generator | None, sampler: Sampler = INDEPENDENT
    ) -> Tensor:
        """Uniform(0, 1) for every channel of every node."""
        mask, channels = batch.node_mask, self.noise_axes.num_channels
        return sampler.uniform((mask.shape[0], num_samples, mask.shape[1], channels), generator, mask.device, torch.float32)

    def scores(self, batch: Batch, noise: Tensor | None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Score the nodes, (batch, num_samples, nodes)."""
        precision = dtype or self.head.weight.dtype
        parts = [node_channels(dense_field(batch, name).detach(), axes).to(precision) for name, axes in self.inputs.items()]
        features = torch.cat(parts, dim=-1) if parts else batch.node_mask.unsqueeze(-1).to(precision)
        features = features.unsqueeze(1)
        if noise is not None:
            features = features + noise.to(precision)
        return {"S_n": call_in(dtype, self, features, batch.edge_index, batch.edge_mask, batch.node_mask)}

    def tolerances(self, batch: Batch, scores: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says. Renaming nodes rounds nothing: of features as they are given there is no error."""
        terms = scores["S_n"].masked_fill(~batch.node_mask.unsqueeze(1), 0.0)
        return {"S_n": SMALLEST_TOLERANCE * _largest_term(terms, self.head.bias)}


def _turning_error(frame: Tensor, ties: Tensor | None, num_nodes: int, num_vectors: int) -> Tensor:
    """Random vectors (batch, num_samples, nodes, d, vectors) that turn with the noise of a frame, and move with the nodes.

    Combinations of the frame's vectors (batch, num_samples, d, d), with waves of the nodes' ties (batch, num_samples, nodes) as
    coefficients; without ties, where nodes have numbers, of those.
    """
    numbers = torch.arange(1, 1 + frame.shape[-1] * num_vectors, device=frame.device, dtype=torch.float64)
    place = 0.618 * torch.arange(1, 1 + num_nodes, device=frame.device) if ties is None else ties.unsqueeze(-1)
    place = place.view(1, 1, -1, 1) if ties is None else place
    waves = (2 * torch.pi * place.double() * numbers).cos().unflatten(-1, (frame.shape[-1], num_vectors))
    return frame.double().unsqueeze(2) @ waves


class VectorInterface(VectorNeuronInterface):
    """Vector neurons for O, SO, E, SE and their products with S_n, with Normal(0, 1) noise on every vector.

    Points are centred where the group has translations. One network has a head for each factor that there is.
    """

    options = {"num_layers": 3, "hidden_size": 64, "num_neighbors": 4, "dropout": 0.0}

    def __init__(self, group: Group, inputs: Mapping[str, Representation], **options: Any) -> None:
        self.inputs = vector_inputs(inputs)
        num_vectors = sum(axes.num_channels for axes in self.inputs.values())
        self.score_names = {factor.score_letter: factor.name for factor in group.factors}
        self.centres = group.has_translations
        assert group.dimension is not None  # groups with vector scores have one
        super().__init__(
            num_vectors, group.dimension, node_scores="n" in self.score_names, frame="v" in self.score_names, **options
        )
        has_nodes = any(axes.count("n") for axes in self.inputs.values())
        self.noise_axes = Representation(("n", "v", num_vectors) if has_nodes else ("v", num_vectors))

    def draw_noise(
        self, batch: Batch, num_samples: int, generator: torch.Generator | None, sampler: Sampler = INDEPENDENT
    ) -> Tensor:
        """Normal(0, 1) for every number of every vector."""
        mask = batch.node_mask
        nodes = [mask.shape[1]] if self.noise_axes.count("n") else []
        shape = (mask.shape[0], num_samples, *nodes, self.dimension, self.noise_axes.num_channels)
        return sampler.normal(shape, generator, mask.device, torch.float32)

    def scores(
        self, batch: Batch, noise: Tensor | None, dtype: torch.dtype | None = None, ties: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Score nodes, (batch, num_samples, nodes), and give d vectors as columns, (batch, num_samples, d, d)."""
        precision = dtype or next(self.parameters()).dtype
        mask, stacked = self._mask(batch), self._stack(batch, precision, snaps=noise is None).unsqueeze(1)
        tolerance = None
        if noise is not None:
            stacked = stacked + (noise if self.noise_axes.count("n") else noise.unsqueeze(2)).to(precision)
        else:
            tolerance = self._choice_tolerance(batch, stacked)
        if ties is not None:  # each sample breaks ties in its own way
            stacked = stacked.expand(-1, ties.shape[1], -1, -1, -1)
        nodes, frame = call_in(dtype, self, stacked, mask, ties, tolerance)
        if nodes is not None and stacked.requires_grad:
            # The frame is differentiable in x, the order of the nodes is not.
            nodes = call_in(dtype or precision, self, stacked.detach(), mask, ties, tolerance, trains=False)[0]
        found = {"n": nodes, "v": frame}
        return {name: found[letter] for letter, name in self.score_names.items()}

    @torch.no_grad()
    def tolerances(self, batch: Batch, scores: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says.

        How much an error of the data grows on its way through the network depends on both, by factors of one to a thousand. So it
        is measured, by the slope of the scores along a random error that turns with the noise and moves with the nodes. In
        training, where dropout would be measured too, it is taken for a hundred.
        """
        # Along one error, that of the first sample.
        frame, ties = noise[self.score_names["v"]][:, :1], noise.get("S_n")
        ties = None if ties is None else ties[:, :1]
        scale = {"v": frame_length(scores[self.score_names["v"]]).unsqueeze(-1)}
        if ties is not None:
            assert self.score_head is not None
            terms = scores["S_n"].masked_fill(~batch.node_mask.unsqueeze(1), 0.0)
            scale["n"] = _largest_term(terms, self.score_head.linear.bias)
        stacked = self._stack(batch, torch.float64, snaps=True).unsqueeze(1)
        choice = self._choice_tolerance(batch, stacked)
        if self.training:
            share = (ROUNDING_GROWTH / CHOICE_GROWTH * choice).view(-1, 1, 1)
            return {name: share * scale[letter] for letter, name in self.score_names.items()}
        errors = vector_errors(batch, self.inputs)
        channels = [axes.num_channels for axes in self.inputs.values()]
        errors = torch.cat([errors[:, i : i + 1].expand(-1, count) for i, count in enumerate(channels)], dim=1)
        largest = errors.amax(dim=1).clamp(min=1e-300)
        # So small that no choice of the network changes.
        step = 1e-10 * stacked.abs().flatten(1).amax(dim=1)
        direction = _turning_error(frame, ties, stacked.shape[2], stacked.shape[4])
        moved = stacked + (step / largest).view(-1, 1, 1, 1, 1) * errors[:, None, None, None, :] * direction
        moved = moved.masked_fill((stacked == 0).all(dim=3, keepdim=True), 0.0)  # padding, and vectors that are none
        nodes, vectors = call_in(torch.float64, self, moved, self._mask(batch), ties, choice)
        growth = ERROR_MARGIN * (largest / step).nan_to_num(0.0, 0.0, 0.0).view(-1, 1, 1)
        changes = {"v": torch.linalg.matrix_norm(vectors - scores[self.score_names["v"]][:, :1]).unsqueeze(-1)}
        if ties is not None:
            changes["n"] = (nodes - scores["S_n"][:, :1]).masked_fill(~batch.node_mask.unsqueeze(1), 0.0)
            changes["n"] = torch.linalg.vector_norm(changes["n"], dim=-1, keepdim=True)
            changes["n"] = changes["n"] / batch.node_mask.sum(dim=1).clamp(min=1).sqrt().view(-1, 1, 1)
        return {name: growth * changes[letter] + SMALLEST_TOLERANCE * scale[letter] for letter, name in self.score_names.items()}

    def _choice_tolerance(self, batch: Batch, stacked: Tensor) -> Tensor:
        """Relative differences of lengths and distances that are none, (batch,)."""
        length = stacked.detach().abs().flatten(1).amax(dim=1).double()
        error = vector_errors(batch, self.inputs).amax(dim=1) / length
        return (CHOICE_GROWTH * error).nan_to_num(1.0, 1.0, 1.0).clamp(SMALLEST_TOLERANCE, 1.0)

    def _mask(self, batch: Batch) -> Tensor:
        return batch.node_mask if self.noise_axes.count("n") else batch.node_mask.new_ones(batch.node_mask.shape[0], 1)

    def _stack(self, batch: Batch, dtype: torch.dtype, snaps: bool = False) -> Tensor:
        """All vectors, points centred where the group moves them, (batch, nodes, d, vectors), zero on padding.

        With `snaps` also where vectors are no longer than their error: the network would make long ones of them.
        """
        mask = self._mask(batch)
        errors = vector_errors(batch, self.inputs).unbind(dim=1)
        middle = centroid(batch, self.inputs)[:, None, :, None] if self.centres else 0.0
        columns = []
        for (name, axes), error in zip(self.inputs.items(), errors, strict=True):
            vectors = vector_channels(batch.fields[name], axes)
            vectors = vectors - middle if axes.count("p") else vectors
            if snaps:
                length = torch.linalg.vector_norm(vectors.detach(), dim=2, keepdim=True)
                vectors = vectors.masked_fill(length <= 4 * error.view(-1, 1, 1, 1), 0.0)
            columns.append(vectors.expand(-1, mask.shape[1], -1, -1))
        return torch.cat(columns, dim=-1).masked_fill(~mask[:, :, None, None], 0.0).to(dtype)


class PlaneInterface(ImageInterface):
    """A small convolutional network for C_n and D_n; the noise is the Gumbel noise on its scores."""

    options = {"num_layers": 3, "hidden_size": 16, "resolution": 32, "dropout": 0.0}
    noise_axes = None

    def __init__(self, group: Group, inputs: Mapping[str, Representation], **options: Any) -> None:
        self.input_name, axes = next(iter(image_inputs(inputs).items()))  # `check_symmetry` has seen to it that there is one
        assert isinstance(group, PlaneGroup)
        super().__init__(group, axes.num_channels, **options)

    def scores(self, batch: Batch, noise: Tensor | None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Score the group's elements, (batch, 1, group order)."""
        image = dense_field(batch, self.input_name).detach()
        image = image if image.dim() == 4 else image.unsqueeze(1)
        image = image.to(dtype or next(self.parameters()).dtype)
        return {self.group.name: call_in(dtype, self, image).unsqueeze(1)}

    def tolerances(self, batch: Batch, scores: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the protocol says. Images that are symmetric up to the rounding of their pixels are symmetric."""
        tolerance = max(ROUNDING_GROWTH * batch.rounding, SMALLEST_TOLERANCE)
        name = self.group.name
        return {name: tolerance * _largest_term(scores[name], self.head.bias)}


def complete_interface_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options of an interface network.

    Args:
        options: Those given.
        defaults: All that there are; they have the types that the options must have.

    Returns:
        `dict`: The given ones and the other defaults.

    Raises:
        ValueError: If there is no such option, or one is out of range.
        TypeError: If one has the wrong type.
    """
    completed = dict(defaults)
    for name, given in options.items():
        if name not in defaults:
            raise ValueError(f"interface_config: unknown key {name!r}, expected {', '.join(defaults) or 'none'}.")
        value = completed[name] = checked_value(f"interface_config[{name!r}]", given, type(defaults[name]))
        if isinstance(defaults[name], float) and not 0 <= value < 1:
            raise ValueError(f"interface_config[{name!r}]: expected a number from 0 to below 1, got {value!r}.")
        if isinstance(defaults[name], int) and value < 1:
            raise ValueError(f"interface_config[{name!r}]: expected a whole number of at least 1, got {value!r}.")
    return completed


# By class, and not by the letters of their scores: another group with the same scores acts in another way.
_EUCLIDEAN = (OrthogonalGroup, SpecialOrthogonalGroup, EuclideanGroup, SpecialEuclideanGroup)
_PLANE = (CyclicGroup, DihedralGroup)


def interface_class(group: Group) -> Any:
    """The network that scores a group.

    Raises:
        ValueError: If there is none.
    """
    kinds = [type(factor) for factor in group.factors]
    others = [kind for kind in kinds if kind is not SymmetricGroup]
    if not others:
        return GraphInterface
    if len(others) == 1 and others[0] in _EUCLIDEAN:
        return VectorInterface
    if len(kinds) == 1 and kinds[0] in _PLANE:
        return PlaneInterface
    raise ValueError(
        f"group {group.name!r}: no interface network scores it, so distribution 'learned' and 'canonical' are not possible. "
        "Choose distribution 'haar'."
    )


def check_symmetry(group: Group, inputs: Mapping[str, Representation], distribution: str) -> None:
    """Refuse a distribution over a group that its inputs do not allow.

    Args:
        group: The group.
        inputs: Axes of the input fields.
        distribution: p(g|x).

    Raises:
        ValueError: If there is no such distribution on the group, a factor of the group acts on none of the inputs, or the
            inputs lack what the distribution reads.
    """
    group.check_distribution(distribution)
    given = ", ".join(f"{name} {str(axes)!r}" for name, axes in inputs.items())
    letters = {letter for axes in inputs.values() for letter in axes.letters}
    for factor in group.factors:
        acts_on = {"p"} if factor.has_translations else factor.letters
        if not acts_on & letters:
            axes = ", ".join(f"{letter!r} ({meaning})" for letter, meaning in AXIS_MEANINGS.items() if letter in acts_on)
            example = next(EXAMPLE_FIELDS[letter] for letter in AXIS_MEANINGS if letter in acts_on)
            raise ValueError(
                f"inputs: the group {factor.name} acts on axes {axes}, so expected an input with one, as {example!r} has, got "
                f"{given}. Describe the axes so, or choose a group that acts on the inputs."
            )
    if distribution in ("haar", "none"):
        return
    permutes = any(isinstance(factor, SymmetricGroup) for factor in group.factors)
    if distribution in ("frame", "exact") and not all(
        type(factor) in (SymmetricGroup, *_EUCLIDEAN) or (distribution == "exact" and type(factor) in _PLANE)
        for factor in group.factors
    ):
        raise ValueError(f"distribution: expected 'haar' or 'none' for the group {group.name}, got {distribution!r}.")
    network = interface_class(group) if distribution in ("learned", "canonical") else None
    turns_vectors = any(type(factor) in _EUCLIDEAN for factor in group.factors)
    if turns_vectors and not vector_inputs(inputs):
        raise ValueError(
            f"inputs: the {distribution} distribution of {group.name} reads vectors, so expected a field such as positions "
            f"'n p', with at most one node axis, got {given}. Add one, or choose distribution 'haar'."
        )
    if permutes and not turns_vectors:
        for name, field in inputs.items():
            if field.count("n") == 2 and field.axes[:2] != ("n", "n"):
                raise ValueError(
                    f"inputs[{name!r}]: the {distribution} distribution of {group.name} reads edges, so expected the node axes "
                    f"first, as in 'n n 3', got {str(field)!r}. Permute the tensor, or choose distribution 'haar'."
                )
    if network is GraphInterface and not any(axes.count("n") in (1, 2) for axes in inputs.values()):
        raise ValueError(
            f"inputs: the {distribution} distribution of {group.name} reads nodes or edges, so expected a field such as 'n 3' or "
            f"'n n 3', got {given}. Choose distribution 'haar'."
        )
    if network is PlaneInterface and not image_inputs(inputs):
        raise ValueError(
            f"inputs: the {distribution} distribution of {group.name} reads images, so expected a field such as '3 h w', got "
            f"{given}. Choose distribution 'haar' or 'exact'."
        )


def check_output(output: Representation, inputs: Mapping[str, Representation]) -> None:
    """Refuse an output that has nodes where no input has any.

    Args:
        output: Axes of the output.
        inputs: Axes of the input fields.

    Raises:
        ValueError: If there is no telling how many nodes there are.
    """
    if output.count("n") and not any(axes.count("n") for axes in inputs.values()):
        given = ", ".join(f"{name} {str(axes)!r}" for name, axes in inputs.items())
        raise ValueError(
            f"output: expected no node axis 'n', as no input has one, got {str(output)!r} with the inputs {given}. Describe the "
            "nodes of the inputs, or write their number as channels."
        )
