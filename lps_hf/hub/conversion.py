"""Checkpoints of the published implementation (jw9730/lps) as models of this package, with a report of every key."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lps_hf.models import modeling_heads_lps
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LEARNED, LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

from .published_cases import PUBLISHED_CASES, PublishedCase, Settings, config_fields, known_options, read_run_name
from .published_files import PublishedFile, read_published
from .published_layouts import HEAD_SIZE, INTERFACE, LAYOUTS, Shapes, find_case, some_of
from .published_names import SCORE_MODULES, Rules, apply_rules, dropped

GIVEN, TENSORS = "your argument", "shapes of the tensors"


class ConvertedKey(NamedTuple):
    """What became of one entry of the file."""

    published: str
    shape: tuple[int, ...] | None
    """`None` for what is no tensor."""
    ours: tuple[str, ...]
    """Empty: it was dropped."""
    how: str
    """What was done with it, or why it was dropped."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did; prints as tables."""

    file: str
    case: str
    keys: tuple[ConvertedKey, ...]
    settings: dict[str, tuple[Any, str]]
    """Fields of the configuration: value, and where it was found."""
    notes: tuple[str, ...]

    @property
    def num_converted(self) -> int:
        """Published tensors that went into the model."""
        return sum(bool(key.ours) for key in self.keys)

    @property
    def num_dropped(self) -> int:
        """Published tensors that did not."""
        return sum(not key.ours and key.shape is not None for key in self.keys)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        settings = {name: {"value": value, "source": source} for name, (value, source) in self.settings.items()}
        keys = [{**key._asdict(), "shape": key.shape and list(key.shape), "ours": list(key.ours)} for key in self.keys]
        return {"file": self.file, "case": self.case, "settings": settings, "keys": keys, "notes": list(self.notes)}

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("published", "shape", "here", "how")]
        for key in self.keys:
            shape = "" if key.shape is None else "×".join(map(str, key.shape)) or "1"
            rows.append((key.published, shape, _in_braces(key.ours) or "—", key.how))
        settings: list[tuple[str, ...]] = [("setting", "value", "from")]
        settings += [(name, str(value), source) for name, (value, source) in self.settings.items()]
        head = f"{self.file}: {self.case}, {self.num_converted} tensors converted, {self.num_dropped} dropped"
        notes = [f"Note: {note}" for note in self.notes]
        return "\n".join([head, "", *_table(settings), "", *_table(rows), *([""] if notes else []), *notes])


@dataclass(frozen=True)
class Conversion:
    """A converted model, its processor, and what was done; save it by `save_checkpoint(model, processor, folder)`."""

    model: LPSPreTrainedModel
    processor: LPSProcessor
    report: ConversionReport


def convert_published(
    file: str | os.PathLike[str], *, case: str | None = None, strict: bool = True, **overrides: Any
) -> Conversion:
    """Turn a checkpoint of the published implementation into a model and its processor.

    Args:
        file: A Lightning checkpoint of the ViT experiments, a state dict of the n-body or EXP-classify code, or either of them
            as safetensors. Nothing in it is run.
        case: Name of the experiment, one of `PUBLISHED_CASES`; `None` finds it from the tensors' names and shapes.
        strict: Refuse tensors of unknown names; otherwise they are dropped and reported.
        overrides: Fields of `LPSConfig` that take the place of what was found, and `num_attention_heads` of the base
            function, which no tensor tells.

    Returns:
        `Conversion`: The model in evaluation mode, in float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not read safely, is of another experiment, has tensors of unknown names or wrong shapes, lacks
            some, or leaves open what the model was. Says which, and what to give.
    """
    published = read_published(Path(file))
    case = find_case(published.tensors) if case is None else case
    if case not in PUBLISHED_CASES:
        raise ValueError(f"case: expected one of {', '.join(PUBLISHED_CASES)}, got {case!r}.")
    facts = PUBLISHED_CASES[case]
    settings, fields, rules = _plan(facts, published, overrides)
    config = LPSConfig(**{name: value for name, (value, _) in fields.items()})
    rules = _without_unread(rules, config)
    unknown = sorted(set(published.tensors) - set(rules))
    if unknown and strict:
        raise ValueError(
            f"{file}: tensors of unknown names for {case!r}: {some_of(unknown)}. Is it another experiment (case=), or changed "
            "code? strict=False leaves them out."
        )
    rules |= dict.fromkeys(unknown, dropped("unknown name"))
    model = getattr(modeling_heads_lps, facts.head)(config)
    _fill(model, rules, published.tensors)
    keys = [ConvertedKey(key, tuple(t.shape), rules[key].names, rules[key].how) for key, t in published.tensors.items()]
    keys += [ConvertedKey(key, None, (), meaning) for key, meaning in published.others.items()]
    notes = (f"The published configuration is in {facts.source}.", *facts.notes)
    notes += (f"The run's folder was {published.run_name!r}.",) if published.run_name else ()
    report = ConversionReport(str(file), case, tuple(keys), _readable(fields, settings), notes)
    return Conversion(model.eval(), LPSProcessor.from_config(config), report)


def _plan(
    facts: PublishedCase, published: PublishedFile, overrides: Mapping[str, Any]
) -> tuple[Settings, dict[str, tuple[Any, str]], Rules]:
    """The configuration's fields, each with where it was found, and the rule of every known tensor."""
    if "backbone_config" in overrides:
        raise ValueError("backbone_config: expected nothing, the tensors tell it. Give num_attention_heads= where they do not.")
    settings = Settings()
    settings.update(facts.options, "published configuration")
    if published.run_name is not None:
        settings.update(read_run_name(published.run_name, facts.network), "name of the run's folder")
    settings.update(known_options(published.hyper_parameters), "hyper-parameters in the file")
    if "num_attention_heads" in overrides:
        settings.update({"num_attention_heads": overrides["num_attention_heads"]}, GIVEN)
    tensors = Shapes(published.tensors)
    layout = LAYOUTS[facts.network](tensors, settings.values, {**facts.config, **overrides})
    fields: dict[str, tuple[Any, str]] = {"backbone_config": (layout.backbone, TENSORS)}
    fields |= {name: (value, "the experiment") for name, value in facts.config.items()}
    fields |= {name: (value, TENSORS) for name, value in layout.fields.items()}
    fields |= config_fields(settings, overrides.get("distribution"))
    given = {name: value for name, value in overrides.items() if name != "num_attention_heads"}
    if "interface_config" in given:
        given["interface_config"] = {**layout.fields.get("interface_config", {}), **given["interface_config"]}
    fields |= {name: (value, GIVEN) for name, value in given.items()}
    if fields["distribution"][0] in LEARNED and not tensors.has(layout.interface_prefix):
        raise ValueError(
            f"distribution: the file has no interface network ({layout.interface_prefix}…), so the model averaged over the group "
            "or over frames, and nothing tells which. Give distribution='haar' or distribution='frame'."
        )
    return settings, fields, layout.rules


def _without_unread(rules: Rules, config: LPSConfig) -> Rules:
    """Drop what the published code has in its state dict, and neither it nor we read with this group and distribution."""
    result = dict(rules)
    permutes = "S_n" in config.group
    for key, rule in rules.items():
        if not any(name.startswith(INTERFACE) for name in rule.names):
            continue
        if config.distribution not in LEARNED:
            result[key] = dropped(f"never read: the distribution {config.distribution!r} has no network")
        elif not permutes and key.removeprefix("interface.vnn_interface.").startswith(SCORE_MODULES):
            result[key] = dropped(f"never read: it scores nodes, and {config.group} does not permute them")
    return result


def _fill(model: LPSPreTrainedModel, rules: Rules, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors in their places, all of them or none."""
    own, places = model.state_dict(), {name: key for key, rule in rules.items() for name in rule.names}
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and rules[key].names and not bool(tensor.isfinite().all()):
            raise ValueError(f"{key}: expected finite numbers, got NaN or infinity. Take a checkpoint from before that.")
    weights = apply_rules(rules, tensors)
    missing = sorted(set(own) - set(weights))
    if missing:
        lacking = sorted({places[name] for name in missing if name in places})
        what = some_of(lacking) if lacking else "tensors for them"
        raise ValueError(
            f"file: nothing to fill {some_of(missing)} with: it lacks {what}. Is it of another experiment (case=), or not the "
            "whole state dict?"
        )
    for name, weight in weights.items():
        if name not in own or weight.shape != own[name].shape:
            expected = f"shape {tuple(own[name].shape)}" if name in own else "no such tensor in a model with these settings"
            raise ValueError(
                f"{places[name]}: it becomes {name}, expected {expected}, got {tuple(weight.shape)}. Check case=, and give what "
                "differs from the published experiment, such as max_nodes=."
            )
    model.load_state_dict(weights)


def _readable(fields: Mapping[str, tuple[Any, str]], settings: Settings) -> dict[str, tuple[Any, str]]:
    """The settings for people: of the backbone's configuration the sizes."""
    names = ("model_type", "hidden_size", "hidden_sizes", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    backbone = fields["backbone_config"][0]
    sizes = {name: getattr(backbone, name) for name in names if hasattr(backbone, name)}
    readable = {"backbone_config": (sizes, TENSORS), **{name: pair for name, pair in fields.items() if name != "backbone_config"}}
    heads = settings.sources.get("num_attention_heads") or settings.sources.get("transformer_n_head")
    if "num_attention_heads" in sizes:
        readable["num_attention_heads"] = sizes["num_attention_heads"], heads or f"heads of {HEAD_SIZE}, as in all of timm's ViTs"
    return readable


def _in_braces(names: tuple[str, ...]) -> str:
    """Several names in one, as in `layers.0.attention.{q_proj,k_proj}.bias`."""
    if len(names) < 2:
        return "".join(names)
    split = [name.split(".") for name in names]
    columns = list(zip(*split, strict=False))
    return ".".join(column[0] if len(set(column)) == 1 else "{" + ",".join(column) + "}" for column in columns)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows, the first of them the head, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "─" * max(map(len, lines)), *lines[1:]]
