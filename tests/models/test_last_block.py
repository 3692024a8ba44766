"""The last block that returns its first token only does what the family's own block does for that token.

The other side of every comparison is a twin with the same weights, whose blocks are the family's own.
"""

import copy
import pickle
from unittest import mock

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.models.vit.modeling_vit import ViTAttention, ViTLayer

from lps_hf.models.backbones import BACKBONE_FAMILIES, Backbone
from lps_hf.models.base_functions import make_base_function
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.last_block import BlockNames, FirstTokenAttention, FirstTokenBlock, return_first_token_only

GRID = 3
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 8 * GRID,
    "patch_size": 8,
}
DINO3 = {"num_register_tokens": 3, "pos_embed_rescale": None}  # positions are rescaled at random in training by default
# test id: (model_type, fields of the configuration)
SETTINGS: dict[str, tuple[str, dict]] = {
    "vit": ("vit", {}),
    "deit": ("deit", {}),
    "vit_mae": ("vit_mae", {}),
    "dinov2": ("dinov2", {}),
    "dinov2-swiglu": ("dinov2", {"use_swiglu_ffn": True}),
    "dinov2_with_registers": ("dinov2_with_registers", {"num_register_tokens": 3}),
    "dinov3_vit": ("dinov3_vit", DINO3),
    "dinov3_vit-gated": ("dinov3_vit", {**DINO3, "use_gated_mlp": True}),
    "clip": ("clip_vision_model", {}),
}
every_setting = pytest.mark.parametrize("name", SETTINGS)
some_settings = pytest.mark.parametrize("name", ["vit", "dinov3_vit", "clip"])  # one of each kind of attention


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_pair(name: str, dtype: torch.dtype = torch.float64, **options) -> tuple[Backbone, Backbone]:
    """Return a backbone and its twin; no parameter is zero, as several are after the family's own initialization."""
    model_type, fields = SETTINGS[name]
    config = AutoConfig.for_model(model_type, **{**SMALL, **fields, **options.pop("fields", {})})
    backbone = Backbone(config, **options).to(dtype)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    with mock.patch("lps_hf.models.backbones.return_first_token_only"):
        twin = Backbone(config, **options).to(dtype)
    twin.load_state_dict(backbone.state_dict())
    return backbone.eval(), twin.eval()


def make_tokens(backbone: Backbone, rows: int = 3) -> Tensor:
    dtype = next(backbone.parameters()).dtype
    return torch.randn(rows, GRID**2, 16, dtype=dtype, requires_grad=True)


def last_block(backbone: Backbone) -> nn.Module:
    return backbone.model.get_submodule(backbone.family.block_names.blocks)[-1]


def is_saved(block: nn.Module) -> bool:
    return isinstance(block, FirstTokenBlock)


def pooled_and_gradients(backbone: Backbone, tokens: Tensor, **kwargs) -> tuple[Tensor, ...]:
    """Return the pooled vector, and the gradients of a function of it."""
    torch.manual_seed(1)
    pooled = backbone(tokens, **kwargs).pooler_output
    wanted = [tokens, *(value for value in backbone.parameters() if value.requires_grad)]
    return pooled, *torch.autograd.grad(pooled.sin().sum(), wanted)


def deviation(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Return the largest difference over the largest entry; a gradient may be nought but for rounding, as of key biases."""
    scale = max(float(value.detach().abs().max()) for value in expected)
    return max(float((one - other).detach().abs().max()) for one, other in zip(found, expected, strict=True)) / scale


def numbers_of_tokens(backbone: Backbone) -> dict[str, list[int]]:
    """Write down how many tokens the parts of the last block read in the passes to come."""
    names, seen = backbone.family.block_names, {}
    block = last_block(backbone)
    attention = getattr(block, names.attention)
    parts = {name: getattr(attention, name) for name in ("q_proj", "k_proj", "v_proj")}
    parts |= {"output": getattr(attention, names.output), "mlp": block.mlp}
    for name, part in parts.items():
        seen[name] = []
        part.register_forward_hook(lambda module, args, output, name=name: seen[name].append(args[0].shape[1]))
    return seen


@every_setting
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_and_gradients_are_those_of_the_full_block(name, attention, dtype):
    backbone, twin = make_pair(name, dtype, attn_implementation=attention)
    tokens = make_tokens(backbone)
    # Some families' eager softmax is always in single precision.
    tolerance = 1e-12 if dtype == torch.float64 and attention == "sdpa" else 2e-6
    for training in (False, True):
        found, expected = (pooled_and_gradients(one.train(training), tokens) for one in (backbone, twin))
        assert deviation(found, expected) < tolerance


@every_setting
def test_last_block_computes_one_token(name):
    backbone, twin = make_pair(name)
    tokens = make_tokens(backbone)
    num_tokens = GRID**2 + backbone.num_prefix_tokens
    saved, full = numbers_of_tokens(backbone), numbers_of_tokens(twin)
    output = backbone(tokens)
    assert output.last_hidden_state is None
    assert output.pooler_output.shape == (3, 16)
    twin(tokens)
    assert saved == {"q_proj": [1], "k_proj": [num_tokens], "v_proj": [num_tokens], "output": [1], "mlp": [1]}
    assert full == {part: [num_tokens] for part in saved}


def test_families_that_need_every_token_keep_it():
    pooled_from_first = {model_type for model_type, _ in SETTINGS.values()}
    assert {name for name, family in BACKBONE_FAMILIES.items() if family.block_names is not None} == pooled_from_first
    unpooled = Backbone(AutoConfig.for_model("vit", **SMALL), pooled=False)
    assert not is_saved(last_block(unpooled))
    assert unpooled(make_tokens(unpooled)).last_hidden_state.shape == (3, GRID**2, 16)


@pytest.mark.parametrize(("output", "is_of_graphs"), [("2", True), ("n 2", False), ("n n 1", False)])
def test_read_outs_of_graphs_save_it(output, is_of_graphs):
    config = LPSConfig(backbone_config=AutoConfig.for_model("vit", **SMALL), output=output)
    base = make_base_function(config)
    assert is_saved(last_block(base.backbone)) is is_of_graphs


@every_setting
@pytest.mark.parametrize("name_of_flag", ["output_hidden_states", "output_attentions"])
@pytest.mark.parametrize("where", ["call", "configuration"])
def test_states_that_are_asked_for_are_complete(name, name_of_flag, where):
    backbone, twin = make_pair(name, attn_implementation="eager")
    tokens = make_tokens(backbone)
    kwargs = {name_of_flag: True} if where == "call" else {}
    if where == "configuration":
        for one in (backbone, twin):
            setattr(one.model.config, name_of_flag, True)
    found, expected = backbone(tokens, **kwargs), twin(tokens, **kwargs)
    assert found.last_hidden_state.shape == (3, GRID**2, 16)
    assert found.keys() == expected.keys()
    assert len(found[name_of_flag.removeprefix("output_")]) == (3 if name_of_flag == "output_hidden_states" else 2)
    for key in found:
        assert all(torch.equal(*pair) for pair in zip(found[key], expected[key], strict=True)), key
    # A call that asks for nothing has its way, whatever the configuration says.
    assert backbone(tokens, **{name_of_flag: False}).last_hidden_state is None


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_padding_mask_is_respected(name):
    backbone, twin = make_pair(name)
    tokens = make_tokens(backbone)
    mask = torch.ones(3, GRID**2 + 1, dtype=torch.long)
    mask[1, 5:] = 0
    found, expected = (one(tokens, attention_mask=mask) for one in (backbone, twin))
    assert torch.equal(found.pooler_output, expected.pooler_output)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert not torch.allclose(found.pooler_output[1], backbone(tokens).pooler_output[1])


@every_setting
def test_names_stay(name):
    backbone, twin = make_pair(name)
    assert list(backbone.state_dict()) == list(twin.state_dict())
    assert [key for key, _ in backbone.named_modules()] == [key for key, _ in twin.named_modules()]
    for one, other in zip(backbone.modules(), twin.modules(), strict=True):
        assert isinstance(one, type(other))
        assert type(one).__name__ == type(other).__name__  # `_no_split_modules` and wrapping policies go by it
    assert sum(map(is_saved, backbone.modules())) == 1
    assert repr(backbone) == repr(twin)


@every_setting
def test_copies_and_pickles(name):
    backbone, twin = make_pair(name)
    tokens = make_tokens(backbone)
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert type(last_block(other)) is type(last_block(backbone))
        assert torch.equal(other(tokens).pooler_output, backbone(tokens).pooler_output)
        with torch.no_grad():
            next(last_block(other).mlp.parameters()).zero_()
        assert not torch.equal(other(tokens).pooler_output, backbone(tokens).pooler_output)
    assert deviation((backbone(tokens).pooler_output,), (twin(tokens).pooler_output,)) < 1e-12


def test_replicas_run_on_their_own_parameters():
    block = last_block(make_pair("vit")[0])
    replica = block._replicate_for_data_parallel()
    assert is_saved(replica)
    assert replica.forward.__self__ is replica


@some_settings
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(name, use_reentrant):
    backbone, twin = make_pair(name)
    backbone.train().model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    tokens, seen = make_tokens(backbone), numbers_of_tokens(backbone)
    for one in (backbone, twin):
        one.zero_grad()
        tokens.grad = None
        one(tokens).pooler_output.sin().sum().backward()
        gradients = tokens.grad, *(value.grad for value in one.parameters() if value.requires_grad)
        if one is backbone:
            found = gradients
    assert deviation(found, gradients) < 1e-12
    assert seen["q_proj"] == [1, 1]  # the backward pass runs the block again
    assert set(seen["mlp"]) == {1}


@some_settings
def test_compiles_without_graph_breaks(name):
    backbone, _ = make_pair(name)
    tokens, seen = make_tokens(backbone), numbers_of_tokens(backbone)
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    found = compiled(tokens).pooler_output
    assert torch.equal(found, backbone(tokens).pooler_output)
    assert seen["mlp"] == [1, 1]


@some_settings
@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
def test_bfloat16(name, autocast):
    backbone, twin = make_pair(name, torch.float32 if autocast else torch.bfloat16)
    tokens = make_tokens(backbone)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
        found, expected = (one(tokens).pooler_output for one in (backbone, twin))
    assert found.dtype == expected.dtype
    assert deviation((found,), (expected,)) < 0.03


def test_offloaded_weights():
    backbone, twin = make_pair("vit")
    tokens = make_tokens(backbone)
    cpu_offload(backbone, torch.device("cpu"))
    assert deviation((backbone(tokens).pooler_output,), (twin(tokens).pooler_output,)) < 1e-12


def test_adapters_around_the_projections():
    backbone, twin = make_pair("vit")

    class Adapted(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base, self.scale = base, nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

        def forward(self, states: Tensor) -> Tensor:
            return self.scale * self.base(states)

    for one in (backbone, twin):
        attention = last_block(one).attention
        attention.q_proj, attention.v_proj = Adapted(attention.q_proj), Adapted(attention.v_proj)
    tokens = make_tokens(backbone)
    found, expected = (pooled_and_gradients(one, tokens) for one in (backbone, twin))
    assert len(found) == len(list(twin.parameters())) + 2
    assert deviation(found, expected) < 1e-12


@pytest.mark.parametrize("name", ["vit", "dinov2_with_registers", "clip"])
def test_patch_dropout(name):
    backbone, twin = make_pair(name, patch_dropout=0.5)
    tokens, seen = make_tokens(backbone), numbers_of_tokens(backbone)
    found, expected = (pooled_and_gradients(one.train(), tokens) for one in (backbone, twin))
    assert deviation(found, expected) < 1e-12
    assert seen["mlp"] == [1]
    assert seen["k_proj"] == [backbone.num_prefix_tokens + round(GRID**2 / 2)]


@pytest.mark.parametrize("name", ["dinov2", "dinov3_vit"])
def test_drop_path_drops_the_same_rows(name):
    backbone, twin = make_pair(name, fields={"drop_path_rate": 0.5})
    tokens = make_tokens(backbone, rows=8)
    found, expected = (pooled_and_gradients(one.train(), tokens) for one in (backbone, twin))
    assert deviation(found, expected) < 1e-12
    assert deviation(found, pooled_and_gradients(backbone.eval(), tokens)) > 1e-2


@pytest.mark.parametrize("kind", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_follows_the_same_law(kind):
    backbone, twin = make_pair("vit", torch.float32, fields={kind: 0.3, "num_hidden_layers": 1})
    tokens = make_tokens(backbone, rows=1).detach().expand(4000, -1, -1)
    with torch.no_grad():
        quiet = backbone(tokens[:1]).pooler_output
        samples = torch.stack([one.train()(tokens).pooler_output for one in (backbone, twin)])
    variance, mean = torch.var_mean(samples, dim=1)
    assert ((mean[0] - mean[1]).abs() < 5 * (variance.sum(0) / 4000).sqrt()).all()
    assert torch.allclose(*variance.sqrt(), rtol=0.1)
    assert not torch.allclose(samples[0], quiet.expand(4000, -1), atol=1e-3)


def add_norm_of_queries(block: ViTLayer) -> None:
    block.attention.q_norm = nn.LayerNorm(8)


def derive_block(block: ViTLayer) -> None:
    block.__class__ = type("ViTLayer", (ViTLayer,), {})


def derive_attention(block: ViTLayer) -> None:
    block.attention.__class__ = type("ViTAttention", (ViTAttention,), {})


def rename_norm(block: ViTLayer) -> None:
    block.norm1 = block.layernorm_before
    del block.layernorm_before


def forget_scaling(block: ViTLayer) -> None:
    del block.attention.scaling


@pytest.mark.parametrize("change", [add_norm_of_queries, derive_block, derive_attention, rename_norm, forget_scaling])
def test_blocks_of_unknown_structure_are_left_alone(change):
    model = AutoModel.from_config(AutoConfig.for_model("vit", **SMALL))
    change(model.layers[-1])
    before = type(model.layers[-1]), type(model.layers[-1].attention)
    return_first_token_only(model, BlockNames())
    assert (type(model.layers[-1]), type(model.layers[-1].attention)) == before


@pytest.mark.parametrize("names", [BlockNames("blocks"), BlockNames(attention="self_attn"), BlockNames(output="out_proj")])
def test_models_with_other_names_are_left_alone(names):
    model = AutoModel.from_config(AutoConfig.for_model("vit", **SMALL))
    before = [type(module) for module in model.modules()]
    return_first_token_only(model, names)
    assert [type(module) for module in model.modules()] == before
    return_first_token_only(model, BlockNames())
    assert is_saved(model.layers[-1])
    assert isinstance(model.layers[-1].attention, FirstTokenAttention)


def test_block_that_loses_the_other_tokens_is_reported():
    attention = last_block(make_pair("vit")[0]).attention
    with pytest.raises(RuntimeError, match=r"`key_value_states`: expected from the last block of .*vit, got None"):
        attention(torch.zeros(1, 1, 16, dtype=torch.float64))


def test_model_without_blocks_reads_every_token():
    backbone = Backbone(AutoConfig.for_model("vit", **{**SMALL, "num_hidden_layers": 0}))
    assert backbone(make_tokens(backbone)).last_hidden_state.shape == (3, GRID**2, 16)
