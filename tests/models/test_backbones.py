"""Backbones fed with tokens agree with the pretrained models they are made of.

Every family is a row of `SETTINGS`: a tiny random configuration. The comparison is always with the family's own code:
its own patch or word embeddings make the tokens, its own forward makes the expected numbers.
"""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPConfig, PreTrainedConfig, PreTrainedModel, SiglipConfig, SwinConfig

from lps_hf.models.backbones import (
    BACKBONE_FAMILIES,
    Backbone,
    TokenInput,
    supported_families,
    vision_tower_config,
)

GRID = 4
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
VISION = {**SMALL, "image_size": 32, "patch_size": 32 // GRID}
TEXT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 40, "pad_token_id": 1}
BEIT = {**VISION, "drop_path_rate": 0.0}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
MODERN = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}

# test id: (model_type, fields of the configuration)
SETTINGS: dict[str, tuple[str, dict]] = {
    "vit": ("vit", VISION),
    "deit": ("deit", VISION),
    "vit_mae": ("vit_mae", VISION),
    "beit-none": ("beit", BEIT),
    "beit-absolute": ("beit", {**BEIT, "use_absolute_position_embeddings": True, "use_mask_token": True}),
    "beit-relative": ("beit", {**BEIT, "use_relative_position_bias": True, "use_mean_pooling": False}),
    "beit-shared": ("beit", {**BEIT, "use_shared_relative_position_bias": True}),
    "dinov2": ("dinov2", VISION),
    "dinov2_with_registers": ("dinov2_with_registers", {**VISION, "num_register_tokens": 3}),
    "dinov3_vit": ("dinov3_vit", {**VISION, "num_register_tokens": 3, "pos_embed_rescale": None}),
    "siglip": ("siglip_vision_model", VISION),
    "siglip-headless": ("siglip_vision_model", {**VISION, "vision_use_head": False}),
    "clip": ("clip_vision_model", VISION),
    "albert": ("albert", {**TEXT, "embedding_size": 16}),
    "bert": ("bert", TEXT),
    "camembert": ("camembert", TEXT),
    "data2vec-text": ("data2vec-text", TEXT),
    "deberta-v2": ("deberta-v2", {**TEXT, **DEBERTA}),
    "distilbert": ("distilbert", {**TEXT, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2}),
    "electra": ("electra", {**TEXT, "embedding_size": 16}),
    "ernie": ("ernie", TEXT),
    "eurobert": ("eurobert", {**TEXT, "num_key_value_heads": 2, **MODERN}),
    "modernbert": ("modernbert", {**TEXT, **MODERN}),
    "mpnet": ("mpnet", TEXT),
    "nomic_bert": ("nomic_bert", {**TEXT, "head_dim": 16}),
    "roberta": ("roberta", TEXT),
    "xlm-roberta": ("xlm-roberta", TEXT),
    "xlm-roberta-xl": ("xlm-roberta-xl", TEXT),
}
IS_TEXT = {name: BACKBONE_FAMILIES[model_type].is_text for name, (model_type, _) in SETTINGS.items()}
VISION_NAMES = [name for name in SETTINGS if not IS_TEXT[name]]
NO_PATCH_DROPOUT = {"beit-relative", "beit-shared", "dinov3_vit", *(name for name in SETTINGS if IS_TEXT[name])}

every_setting = pytest.mark.parametrize("name", SETTINGS)
every_vision_setting = pytest.mark.parametrize("name", VISION_NAMES)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_config(name: str) -> PreTrainedConfig:
    """Return the tiny configuration of a row."""
    model_type, fields = SETTINGS[name]
    return AutoConfig.for_model(model_type, **fields)


def make_pretrained(name: str) -> PreTrainedModel:
    """Return a full model of a row whose every parameter matters: several are zero after the family's own init."""
    model = AutoModel.from_config(make_config(name)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def tokens_and_expected(name: str, model: PreTrainedModel, grid: int = GRID, **kwargs) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens of the model's own first layer, and the model's own patch states and pooled vector."""
    family = BACKBONE_FAMILIES[SETTINGS[name][0]]
    parameter = next(model.parameters())
    first_layer = model.get_submodule(family.input_path)
    if family.is_text:
        words = torch.randint(4, 50, (2, grid**2))
        states = model(input_ids=words, **kwargs).last_hidden_state
        return first_layer(words), states, states.mean(dim=1)
    side = grid * VISION["patch_size"]
    pixels = torch.randn(2, 3, side, side, dtype=parameter.dtype)
    if family.masks_patches:
        model.config.mask_ratio = 0.0
        kwargs["noise"] = torch.arange(grid**2).expand(2, -1)
    output = model(pixels, **kwargs)
    states = output.last_hidden_state
    num_prefix = states.shape[1] - grid**2
    patches = states[:, num_prefix:]
    pooled = output.pooler_output if name in ("siglip", "clip") or name.startswith("beit") else states[:, 0]
    if name == "siglip-headless":
        pooled = patches.mean(dim=1)
    return first_layer(pixels).flatten(2).transpose(1, 2), patches, pooled


def make_tokens(backbone: Backbone, batch: int = 2) -> Tensor:
    """Return random tokens of the shape that the backbone takes."""
    dtype = next(backbone.parameters()).dtype
    return torch.randn(batch, backbone.num_tokens, backbone.token_size, dtype=dtype)


class LargerModel(PreTrainedModel):
    """A model with a backbone inside, loaded the way any model of the library is."""

    config_class = type("LargerConfig", (PreTrainedConfig,), {"model_type": "larger", "name": None})
    supports_gradient_checkpointing = True

    def __init__(self, config):
        super().__init__(config)
        self.backbone = Backbone(make_config(config.name), grid_size=GRID)
        self.head = nn.Linear(self.backbone.hidden_size, 2)
        self.post_init()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.backbone(tokens).pooler_output)


@every_setting
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"])
def test_agrees_with_the_pretrained_model(name, dtype, tolerance):
    model = make_pretrained(name).to(dtype)
    backbone = Backbone(model.config, GRID).to(dtype).eval()
    backbone.load_weights_from(model)
    with torch.no_grad():
        tokens, patches, pooled = tokens_and_expected(name, model)
        torch.testing.assert_close(backbone(tokens).pooler_output, pooled, rtol=tolerance, atol=tolerance)
        only_tokens = Backbone(model.config, GRID, pooled=False).to(dtype).eval()
        only_tokens.load_weights_from(model)
        output = only_tokens(tokens)
        assert output.pooler_output is None
        torch.testing.assert_close(output.last_hidden_state, patches, rtol=tolerance, atol=tolerance)


@every_vision_setting
@pytest.mark.parametrize("grid", [1, 3, 6])
def test_agrees_on_another_grid(name, grid):
    model = make_pretrained(name)
    backbone = Backbone(model.config, grid).eval()
    backbone.load_weights_from(model)
    asks_for_it = SETTINGS[name][0] in ("vit", "deit", "vit_mae", "siglip_vision_model", "clip_vision_model")
    with torch.no_grad():
        options = {"interpolate_pos_encoding": True} if asks_for_it else {}
        tokens, patches, pooled = tokens_and_expected(name, model, grid, **options)
        output = backbone(tokens, output_hidden_states=True)  # asks for every token behind the last block
    torch.testing.assert_close(output.last_hidden_state, patches, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.pooler_output, pooled, rtol=1e-5, atol=1e-5)


@every_setting
def test_state_dict_round_trip(name):
    first, second = (Backbone(make_config(name), GRID).eval() for _ in range(2))
    second.load_state_dict(first.state_dict())
    tokens = make_tokens(first)
    with torch.no_grad():
        assert torch.equal(first(tokens).pooler_output, second(tokens).pooler_output)


@every_setting
def test_survives_save_and_from_pretrained(name, tmp_path):
    # from_pretrained builds on the meta device and fills what no file holds, such as buffers
    model = LargerModel(LargerModel.config_class(name=name)).eval()
    tokens = make_tokens(model.backbone)
    model.save_pretrained(tmp_path)
    loaded, info = LargerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        assert torch.equal(model(tokens), loaded(tokens))
    half = LargerModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half(tokens.bfloat16()).dtype == torch.bfloat16


@every_setting
def test_weights_that_a_checkpoint_lacks_are_initialized(name):
    model = LargerModel.from_pretrained(None, config=LargerModel.config_class(name=name), state_dict={})
    with torch.no_grad():
        assert model(make_tokens(model.backbone)).isfinite().all()


@every_setting
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "tokens"])
def test_every_parameter_is_used(name, pooled):
    backbone = Backbone(make_config(name), GRID, pooled=pooled).train()
    output = backbone(make_tokens(backbone))
    (output.pooler_output if pooled else output.last_hidden_state).sum().backward()
    unused = [key for key, value in backbone.named_parameters() if value.requires_grad and value.grad is None]
    assert not unused
    width = backbone.hidden_size
    assert not pooled or output.pooler_output.shape == (2, width)
    if pooled and backbone.family.block_names is not None:
        assert output.last_hidden_state is None
    else:
        assert output.last_hidden_state.shape == (2, GRID**2, width)


@every_setting
def test_a_training_step_reduces_a_loss(name):
    backbone = Backbone(make_config(name), GRID).train()
    tokens = make_tokens(backbone)
    target = torch.randn(2, backbone.hidden_size)
    optimizer = torch.optim.SGD([value for value in backbone.parameters() if value.requires_grad], lr=1e-3)

    def loss() -> Tensor:
        torch.manual_seed(1)  # the same dropout in both evaluations
        return (backbone(tokens).pooler_output - target).square().mean()

    before = loss()
    before.backward()
    optimizer.step()
    with torch.no_grad():
        assert loss() < before


@every_setting
def test_gradient_checkpointing_changes_nothing(name):
    backbone = Backbone(make_config(name), GRID).train()
    if not backbone.model.supports_gradient_checkpointing:
        pytest.skip("transformers has no checkpointing for this family")
    tokens = make_tokens(backbone)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            backbone.model.activation_checkpointing_enable()
        torch.manual_seed(1)
        backbone.zero_grad()
        backbone(tokens).pooler_output.square().sum().backward()
        gradients.append([value.grad.clone() for value in backbone.parameters() if value.requires_grad])
    torch.testing.assert_close(*gradients)


@every_setting
def test_attention_implementations_agree(name):
    eager = Backbone(make_config(name), GRID, attn_implementation="eager").eval()
    assert eager.model.config._attn_implementation == "eager"
    if not eager.model._supports_sdpa:
        pytest.skip("transformers has one attention only for this family")
    sdpa = Backbone(make_config(name), GRID, attn_implementation="sdpa").eval()
    assert sdpa.model.config._attn_implementation == "sdpa"
    sdpa.load_state_dict(eager.state_dict())
    tokens = make_tokens(eager)
    with torch.no_grad():
        torch.testing.assert_close(eager(tokens).pooler_output, sdpa(tokens).pooler_output)
        output = eager(tokens, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3
    assert len(output.attentions) == 2


@every_setting
def test_grid_of_one_token(name):
    backbone = Backbone(make_config(name), 1).eval()
    output = backbone(make_tokens(backbone), output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 1, backbone.hidden_size)
    assert output.pooler_output.isfinite().all()


def test_default_grids():
    assert Backbone(make_config("vit")).grid_size == GRID
    assert Backbone(AutoConfig.for_model("bert", **{**TEXT, "max_position_embeddings": 196})).grid_size == 14
    oblong = AutoConfig.for_model("vit", **{**VISION, "image_size": [32, 64]})
    with pytest.raises(ValueError, match=r"`grid_size`.*4 x 8"):
        Backbone(oblong)
    assert Backbone(oblong, 3).num_tokens == 9


def test_configuration_of_the_user_is_left_alone():
    config = make_config("vit_mae")
    before = config.to_dict()
    Backbone(config, 3)
    assert config.to_dict() == before


def test_dtype_is_that_of_the_surrounding_model():
    config = make_config("vit")
    config.dtype = torch.float16
    assert {value.dtype for value in Backbone(config).parameters()} == {torch.float32}


def test_fresh_masked_autoencoder_has_positions():
    positions = Backbone(make_config("vit_mae")).model.embeddings.position_embeddings
    assert not positions.requires_grad
    assert positions[:, 1:].abs().sum(dim=-1).min() > 0


@pytest.mark.parametrize(("config_class", "name"), [(CLIPConfig, "clip"), (SiglipConfig, "siglip")], ids=["clip", "siglip"])
def test_composite_models_give_their_vision_tower(config_class, name):
    config = config_class(text_config={**TEXT, "projection_size": 32}, vision_config=VISION)
    assert vision_tower_config(config) is config.vision_config
    assert vision_tower_config(config.vision_config) is config.vision_config
    model = AutoModel.from_config(config).eval()
    backbone = Backbone(config).eval()
    backbone.load_weights_from(model)
    with torch.no_grad():
        tokens, _, pooled = tokens_and_expected(name, model.vision_model)
        torch.testing.assert_close(backbone(tokens).pooler_output, pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [GRID, 6])
@pytest.mark.parametrize("name", ["vit", "beit-relative", "clip", "bert"])
def test_half_precision_weights_are_cast(name, grid):
    model = make_pretrained(name).bfloat16()
    backbones = [Backbone(model.config, GRID if IS_TEXT[name] else grid) for _ in range(2)]
    backbones[0].load_weights_from(model)
    backbones[1].load_weights_from(model.float())
    for key, value in backbones[0].state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, backbones[1].state_dict()[key]), key


@every_setting
def test_patch_dropout(name):
    config = make_config(name)
    if name in NO_PATCH_DROPOUT:
        with pytest.raises(ValueError, match=r"`patch_dropout`: expected 0"):
            Backbone(config, GRID, patch_dropout=0.5)
        return
    backbone = Backbone(config, GRID, patch_dropout=0.7).eval()
    tokens = make_tokens(backbone)
    with torch.no_grad():
        first, second = backbone(tokens), backbone(tokens)
        assert torch.equal(first.pooler_output, second.pooler_output)
        backbone.train()
        dropped = []
        for twin in (backbone, copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
            torch.manual_seed(2)
            dropped.append(twin(tokens))
        assert torch.equal(dropped[0].pooler_output, dropped[1].pooler_output)
        assert torch.equal(dropped[0].pooler_output, dropped[2].pooler_output)
        assert not torch.equal(dropped[0].pooler_output, backbone(tokens).pooler_output)
        for num_tokens in (round(0.3 * GRID**2), GRID**2):
            states = backbone(tokens, output_hidden_states=True).last_hidden_state  # from here on it cannot be pickled
            assert states.shape == (2, num_tokens, 32)
            backbone.eval()
    with pytest.raises(ValueError, match="`pooled=False`"):
        Backbone(config, GRID, patch_dropout=0.5, pooled=False)


def test_patch_dropout_keeps_whole_tokens_of_each_row():
    embeddings = Backbone(make_config("vit"), patch_dropout=0.5).model.embeddings
    image = torch.randn(2, 32, GRID, GRID)
    with torch.no_grad():
        whole = embeddings.eval()(image)
        kept = embeddings.train()(image)
    assert kept.shape == (2, 1 + GRID**2 // 2, 32)
    assert torch.equal(kept[:, 0], whole[:, 0])
    places = [[whole[row, 1:].eq(token).all(dim=-1).nonzero().item() for token in kept[row, 1:]] for row in (0, 1)]
    assert all(row == sorted(set(row)) for row in places)
    assert places[0] != places[1]


def test_patch_dropout_always_keeps_a_token():
    backbone = Backbone(make_config("dinov2_with_registers"), 1, patch_dropout=0.99).train()
    assert backbone(make_tokens(backbone), output_hidden_states=True).last_hidden_state.shape == (2, 1, 32)


@pytest.mark.parametrize("patch_dropout", [-0.1, 1.0, "half", True])
def test_patch_dropout_is_a_probability(patch_dropout):
    with pytest.raises(ValueError, match="`patch_dropout`: expected a probability"):
        Backbone(make_config("vit"), patch_dropout=patch_dropout)


def test_other_families_are_refused():
    with pytest.raises(ValueError, match=r"`config`: expected .*siglip_vision_model.*got 'swin'"):
        Backbone(SwinConfig())
    with pytest.raises(ValueError, match="`config`: expected"):
        Backbone(SimpleNamespace(hidden_size=4))
    assert set(supported_families()) == {model_type for model_type, _ in SETTINGS.values()}


@pytest.mark.parametrize("grid_size", [0, -1, 2.0, "4", True])
def test_grid_size_is_a_positive_integer(grid_size):
    with pytest.raises(ValueError, match="`grid_size`: expected an integer of at least 1, got"):
        Backbone(make_config("vit"), grid_size)


@pytest.mark.parametrize(
    ("name", "reserved"), [("bert", 0), ("roberta", 2), ("mpnet", 2), ("modernbert", 0), ("xlm-roberta-xl", 2)]
)
def test_text_has_a_limited_number_of_positions(name, reserved):
    config = make_config(name)
    config.max_position_embeddings = 16 + reserved
    backbone = Backbone(config, 4)
    assert backbone(make_tokens(backbone)).last_hidden_state.shape[1] == 16
    config.max_position_embeddings = 15 + reserved
    with pytest.raises(ValueError, match=r"`grid_size`: expected at most 3.*15 positions; got 4 \(16 tokens\)"):
        Backbone(config, 4)


def test_tokens_of_another_shape_are_refused():
    backbone = Backbone(make_config("electra"), GRID)
    assert (backbone.token_size, backbone.hidden_size) == (16, 32)
    for shape in [(2, GRID**2, 32), (2, 5, 16), (GRID**2, 16)]:
        with pytest.raises(ValueError, match=r"`tokens`: expected shape \(batch, 16, 16\), got"):
            backbone(torch.randn(shape))


def test_weights_that_do_not_fit_are_named():
    backbone = Backbone(make_config("vit"))
    with pytest.raises(ValueError, match="`pretrained`: expected a 'vit' model, got 'deit'"):
        backbone.load_weights_from(make_pretrained("deit"))

    def other(**fields) -> PreTrainedModel:
        return AutoModel.from_config(AutoConfig.for_model("vit", **{**VISION, **fields}))

    with pytest.raises(ValueError, match=r"layers\.1\.\S+ is missing"):
        backbone.load_weights_from(other(num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"layers\.2\.\S+ is unexpected"):
        backbone.load_weights_from(other(num_hidden_layers=3))
    with pytest.raises(ValueError, match=r"fc1\.weight has the shape \(40, 32\), not \(48, 32\)"):
        backbone.load_weights_from(other(intermediate_size=40))
    with pytest.raises(ValueError, match=r"position_embeddings has the shape \(1, 33, 32\)"):
        backbone.load_weights_from(other(image_size=[32, 64]))
    beit = {**BEIT, "use_relative_position_bias": True}
    oblong = AutoModel.from_config(AutoConfig.for_model("beit", **{**beit, "image_size": [32, 64]}))
    with pytest.raises(ValueError, match=r"relative_position_bias_table has the shape \(108, 2\)"):
        Backbone(AutoConfig.for_model("beit", **beit)).load_weights_from(oblong)


@every_setting
def test_superfluous_weights_are_not_kept(name):
    backbone = Backbone(make_config(name), GRID, pooled=False)
    family = backbone.family
    assert isinstance(backbone.model.get_submodule(family.input_path), TokenInput)
    superfluous = (family.input_path, *family.pooling_modules, "embeddings.mask_token")
    assert not [key for key in backbone.model.state_dict() if key.startswith(superfluous)]
