"""Configurations of the small base networks f of arXiv 2306.02866; the networks themselves are in `base_networks`."""

from typing import Any

from transformers import PreTrainedConfig

from .field_types import check_fields

ACTIVATIONS = ("relu", "tanh")


class _BaseNetworkConfig(PreTrainedConfig):
    """Checks that the configurations share."""

    def __post_init__(self, **kwargs: Any) -> None:
        check_fields(self)
        self.check_values()
        super().__post_init__(**kwargs)

    def check_values(self) -> None:
        """Check the range of every value.

        Raises:
            ValueError: Naming the field, what was expected and what was given.
        """
        raise NotImplementedError

    def _check_sizes(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}.")

    def _check_dropout(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a number from 0 to below 1, got {self.dropout!r}.")


class MLPBaseConfig(_BaseNetworkConfig):
    """Configuration of `MLPBase`: an MLP on all input fields, flattened. Defaults: the paper's for EXP-classify.

    Args:
        hidden_sizes (`list[int]`): Width of each hidden layer.
        activation (`str`): `"relu"` (EXP-classify) or `"tanh"` (graph separation).

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range or unknown.
    """

    model_type = "lps_mlp"

    hidden_sizes: list[int] | tuple[int, ...] = (2048, 4096, 2048, 10)
    activation: str = "relu"

    def check_values(self) -> None:
        sizes = self.hidden_sizes
        if not sizes or min(sizes) < 1:
            raise ValueError(f"hidden_sizes: expected a list of positive widths such as [64, 128, 64], got {sizes!r}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected {' or '.join(map(repr, ACTIVATIONS))}, got {self.activation!r}.")


class GINIDBaseConfig(_BaseNetworkConfig):
    """Configuration of `GINIDBase`: message passing on graphs whose nodes carry their rank. Defaults: the paper's.

    Args:
        hidden_size (`int`): Width of the hidden layers.
        num_layers (`int`): Number of message passing layers.
        dropout (`float`): Dropout inside the layers' MLPs, in training.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    model_type = "lps_gin_id"

    hidden_size: int = 64
    num_layers: int = 3
    dropout: float = 0.0

    def check_values(self) -> None:
        self._check_sizes("hidden_size", "num_layers")
        self._check_dropout()


class PairTransformerBaseConfig(_BaseNetworkConfig):
    """Configuration of `PairTransformerBase`: a transformer on all pairs of nodes. Defaults: the paper's for n-body systems.

    Args:
        hidden_size (`int`): Width of the tokens.
        num_hidden_layers (`int`): Number of blocks.
        num_attention_heads (`int`): Attention heads per block; they divide `hidden_size`.
        intermediate_size (`int`): Width of the hidden layer of the blocks' MLPs.
        dropout (`float`): Dropout on tokens, attention weights, hidden layers and in the read-out, in training.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range, or the heads do not divide the width.
    """

    model_type = "lps_pair_transformer"

    hidden_size: int = 64
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    intermediate_size: int = 64
    dropout: float = 0.0

    def check_values(self) -> None:
        self._check_sizes("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads: expected a divisor of hidden_size = {self.hidden_size}, got {self.num_attention_heads}."
            )
        self._check_dropout()


class ParticleGNNBaseConfig(_BaseNetworkConfig):
    """Configuration of `ParticleGNNBase`: message passing between all particles. Defaults: the paper's for n-body systems.

    Args:
        hidden_size (`int`): Width of the hidden layers.
        num_hidden_layers (`int`): Number of message passing layers.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    model_type = "lps_particle_gnn"

    hidden_size: int = 60
    num_hidden_layers: int = 4

    def check_values(self) -> None:
        self._check_sizes("hidden_size", "num_hidden_layers")


BASE_NETWORK_CONFIGS: dict[str, type] = {
    config.model_type: config for config in (MLPBaseConfig, GINIDBaseConfig, PairTransformerBaseConfig, ParticleGNNBaseConfig)
}
"""Configuration classes by `model_type`."""
