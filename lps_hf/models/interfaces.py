"""Which network q(x, ε) scores the elements of which group: the adapters between a batch of fields and the networks."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .field_types import checked_value
from .group import Group
from .image_interface import ImageInterface
from .interface_networks import GINInterface
from .orthogonal_groups import EuclideanGroup, OrthogonalGroup, SpecialEuclideanGroup, SpecialOrthogonalGroup
from .plane_groups import CyclicGroup, DihedralGroup, PlaneGroup
from .representations import AXIS_MEANINGS, EXAMPLE_FIELDS, Batch, Field, Representation
from .samplers import INDEPENDENT, Sampler
from .symmetric_group import SymmetricGroup
from .vector_neurons import VectorNeuronInterface


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

        `dtype` is what they are computed in; by default the network's own.
        """
        ...


def call_in(dtype: torch.dtype | None, network: nn.Module, *args: Any) -> Any:
    """Call a network with its weights in another precision, and leave it as it is; `None` for its own."""
    if dtype is None:
        return network(*args)
    copies = {
        # Copies even where nothing is converted: in training mode statistics and their counter are written to.
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    return functional_call(network, copies, args)


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
        parts = [node_channels(dense_field(batch, name), axes).to(precision) for name, axes in self.inputs.items()]
        features = torch.cat(parts, dim=-1) if parts else batch.node_mask.unsqueeze(-1).to(precision)
        features = features.unsqueeze(1)
        if noise is not None:
            features = features + noise.to(precision)
        return {"S_n": call_in(dtype, self, features, batch.edge_index, batch.edge_mask, batch.node_mask)}


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
        has_nodes = bool(self.noise_axes.count("n"))
        mask = batch.node_mask if has_nodes else batch.node_mask.new_ones(batch.node_mask.shape[0], 1)
        middle = centroid(batch, self.inputs)[:, None, :, None] if self.centres else 0.0
        columns = []
        for name, axes in self.inputs.items():
            vectors = vector_channels(batch.fields[name], axes)
            vectors = vectors - middle if axes.count("p") else vectors
            columns.append(vectors.expand(-1, mask.shape[1], -1, -1))
        stacked = torch.cat(columns, dim=-1).masked_fill(~mask[:, :, None, None], 0.0).to(precision).unsqueeze(1)
        if noise is not None:
            stacked = stacked + (noise if has_nodes else noise.unsqueeze(2)).to(precision)
        if ties is not None:  # each sample breaks ties in its own way
            stacked = stacked.expand(-1, ties.shape[1], -1, -1, -1)
        nodes, frame = call_in(dtype, self, stacked, mask, ties)
        found = {"n": nodes, "v": frame}
        return {name: found[letter] for letter, name in self.score_names.items()}


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
        image = dense_field(batch, self.input_name)
        image = image if image.dim() == 4 else image.unsqueeze(1)
        image = image.to(dtype or next(self.parameters()).dtype)
        return {self.group.name: call_in(dtype, self, image).unsqueeze(1)}


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
