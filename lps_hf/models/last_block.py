"""The last block of a backbone whose read-out is made from the first token: that token is its only query.

Behind the last block nothing reads the other tokens then. Keys and values still come from all of them, but query, output
projection and MLP of the block are needed for one token, which spares almost a whole block: about 6 % of 12.

How: the classes of the last block and of its attention are exchanged for subclasses of themselves, as torch's
`fully_shard` does. The block's own forward then runs on the first token alone, with its own norms, layer scale, dropout
and drop path; only the attention is written anew, since it is the one part that looks at other tokens. No module is added
or renamed, so checkpoints, adapters and hooks find what they always found, and gradient checkpointing, which transformers
wraps around the forward of every subclass, stays in force. A forward stored on the instance would lose both that and the
copies that `nn.DataParallel` makes.
"""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


@dataclass(frozen=True)
class BlockNames:
    """What a family calls its blocks and the parts of one; the defaults are ViT's.

    Args:
        blocks: The list of blocks, a path from the model.
        norm: The norm before the attention, in the block.
        attention: The attention, in the block.
        output: The projection behind the heads, in the attention.
        scaling: The factor on the scores, in the attention.
        dropout: The probability with which an attention weight is dropped, in the attention.
    """

    blocks: str = "layers"
    norm: str = "layernorm_before"
    attention: str = "attention"
    output: str = "o_proj"
    scaling: str = "scaling"
    dropout: str = "attention_dropout"


class FirstToken(nn.Module):
    """What the two exchanged classes share.

    Attributes: `names` (of the family's parts), `family_code` (the module that defines the class before the exchange),
    `recipe` (what `_first_token_class` makes the class of).
    """

    names: BlockNames
    family_code: ModuleType
    recipe: tuple[Any, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy by the recipe, since a class that is made at run time cannot be found by its name."""
        return _empty_instance, self.recipe, self.__dict__


class FirstTokenBlock(FirstToken):
    """A family's block that returns its first token only, unless hidden states or attentions are asked for."""

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Tensor:
        """Run the block.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, tokens, hidden_size)`): What the block before returns.
            attention_mask: `None`, as without padding; with a mask the block returns all tokens.
            kwargs: As the family's block takes them.

        Returns:
            `torch.Tensor` of shape `(batch, 1, hidden_size)`, or `(batch, tokens, hidden_size)` where all are needed.
        """
        attention = getattr(self, self.names.attention)
        if attention_mask is not None or _are_states_recorded(attention.config, kwargs):
            return super().forward(hidden_states, attention_mask, **kwargs)
        normed = getattr(self, self.names.norm)(hidden_states)
        return super().forward(hidden_states[:, :1], None, key_value_states=normed, **kwargs)


class FirstTokenAttention(FirstToken):
    """A family's attention whose keys and values may come from more tokens than its queries."""

    config: Any
    head_dim: int
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def forward(
        self, hidden_states: Tensor, attention_mask: Any = None, key_value_states: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to tokens.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch, queries, hidden_size)`): The tokens that attend.
            attention_mask: Handed on.
            key_value_states (`torch.Tensor` of shape `(batch, tokens, hidden_size)`): The tokens that are attended to; by
                default `hidden_states`, in the family's own code.
            kwargs: As the family's attention takes them. Rotary `position_embeddings` turn keys of patches; queries
                are taken for tokens before the patches, which stay as they are.

        Returns:
            The result, `torch.Tensor` of shape `(batch, queries, hidden_size)`, and the attention weights or `None`.

        Raises:
            RuntimeError: If the block has handed on its first token, but not the others.
        """
        if key_value_states is None and hidden_states.shape[1] > 1:
            return super().forward(hidden_states, attention_mask, **kwargs)
        if key_value_states is None:
            raise RuntimeError(
                f"`key_value_states`: expected from the last block of {self.family_code.__name__}, got None. Its forward is "
                f"not that of transformers 5.23; install this version, or call the backbone with `output_hidden_states=True`."
            )
        states = self.q_proj(hidden_states), self.k_proj(key_value_states), self.v_proj(key_value_states)
        query, key, value = (state.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for state in states)
        positions = kwargs.pop("position_embeddings", None)
        if positions is not None:
            key, _ = self.family_code.apply_rotary_pos_emb(key, key, *positions)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, self.family_code.eager_attention_forward)
        dropout = getattr(self, self.names.dropout) if self.training else 0.0
        scaling = getattr(self, self.names.scaling)
        result, weights = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return getattr(self, self.names.output)(result.flatten(2)), weights


def return_first_token_only(model: PreTrainedModel, names: BlockNames) -> None:
    """Let the last block of a model return its first token only; a block of unknown structure is left as it is.

    Args:
        model: A model that reads no other token behind its last block, and whose attention is not causal.
        names: What its family calls the parts.
    """
    blocks: Any = dict(model.named_modules()).get(names.blocks)
    block: Any = blocks[-1] if blocks else None
    attention: Any = getattr(block, names.attention, None)
    if _has_known_structure(block, attention, names):
        block.__class__ = _first_token_class(FirstTokenBlock, block.__class__, names)
        attention.__class__ = _first_token_class(FirstTokenAttention, attention.__class__, names)


def _has_known_structure(block: Any, attention: Any, names: BlockNames) -> bool:
    """Whether both are transformers' own classes, so that their forward is known, with the parts this file needs."""
    if not all(type(module).__module__.startswith("transformers.models.") for module in (block, attention)):
        return False
    projections = {name for name, _ in attention.named_children()}
    attributes = ("config", "head_dim", names.scaling, names.dropout)
    return (
        projections == {"q_proj", "k_proj", "v_proj", names.output}
        and hasattr(block, names.norm)
        and all(hasattr(attention, name) for name in attributes)
    )


def _are_states_recorded(config: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether states of every token are asked for, by the rule by which transformers records them."""
    return any(kwargs.get(name, getattr(config, name, False)) for name in ("output_hidden_states", "output_attentions"))


@functools.cache
def _first_token_class(mixin: Any, family_class: Any, names: BlockNames) -> type[Any]:
    """The subclass; it keeps the name, by which transformers knows what must stay on one device."""
    attributes = {
        "__doc__": mixin.__doc__,
        "names": names,
        "family_code": sys.modules[family_class.__module__],
        "recipe": (mixin, family_class, names),
    }
    return type(family_class.__name__, (mixin, family_class), attributes)


def _empty_instance(mixin: Any, family_class: Any, names: BlockNames) -> Any:
    """An instance without state, which pickle and deepcopy fill."""
    subclass: Any = _first_token_class(mixin, family_class, names)
    return subclass.__new__(subclass)
