"""Model cards: a typed object with what is given, filled in by training and computed, and a template that makes it readable."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.data.rows import TASK_COLUMNS
from lps_hf.evaluation.prediction import task_of
from lps_hf.models import modeling_heads_lps, modeling_lps
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_lps import LPSPreTrainedModel

from .card_facts import (
    class_names,
    distribution_in_words,
    example_row,
    family_of,
    has_nodes,
    input_table,
    interpolates,
    is_random,
    output_law,
    output_table,
    pipeline_task_of,
    symmetry_of,
)
from .card_results import (
    deviates_on_all_rows,
    environment_rows,
    equivariance_facts,
    eval_results,
    headline,
    is_hub_id,
    metric_name,
    metric_rows,
    number,
    sample_rows,
    spread_of,
    starts_above_backbone,
    training_rows,
)

# Read at once: what stands in the file when a long training ends may be of another version than this code.
TEMPLATE = (Path(__file__).parent / "card_template.md").read_text(encoding="utf-8")
TAGS = ("lps_hf", "probabilistic-symmetrization")
# What stands on a card until it is known better; see `complete_card`.
# The last line of the template.
OWN_MARK = "<!-- Made by lps_hf from config.json and results.json. -->"
PLACEHOLDER = "path/to/this/folder"
NO_LICENSE = "- No licence was given for these weights. Ask their author before you use them."
# Tasks of lps_hf by the name that the Hub sorts them under.
_PIPELINE_TAGS = {"image-classification": "image-classification"}
_GIVEN_TEXTS = ("model_id", "license", "license_name", "license_link", "notes", "figure")
_GIVEN_LISTS = ("language", "base_model", "datasets", "tags")


@dataclass(kw_only=True)
class LPSModelCardData(ModelCardData):
    """What a model card says. As metadata (`to_dict`, `to_yaml`) it is the header of the card; `render` makes all of it.

    A fact that is missing is left out of the card, and never invented.

    Args:
        model_id: Given: the repository, `user/name`.
        license: Given: the licence of the weights, as the Hub names it.
        license_name: Given: the name of a licence of one's own, with `license="other"`.
        license_link: Given: where it stands.
        language: Given: language of the data.
        base_model: Given: Hub id of the pretrained backbone. Default: that in the results, if it is one.
        datasets: Given: Hub ids of the data. Default: that in the results, if it is one.
        tags: Given: more tags.
        notes: Given: a paragraph of your own in Markdown, for what nobody else can know.
        figure: Given: file name of the figure beside the card.
        results: Filled by training and evaluation: what `results.json` holds.

    Raises:
        TypeError: If a given value has the wrong type.
    """

    # Given by the user.
    model_id: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: str | list[str] | None = None
    base_model: str | list[str] | None = None
    datasets: str | list[str] | None = None
    tags: str | list[str] | None = None  # type: ignore[assignment]  # one tag is as good as a list of one
    notes: str | None = None
    figure: str | None = None
    # Filled by training and evaluation.
    results: dict[str, Any] = field(default_factory=dict)
    # Computed from the model.
    config: LPSConfig | None = field(default=None, init=False)
    head: str = field(default="", init=False)
    task: str | None = field(default=None, init=False)
    pipeline_tag: str | None = field(default=None, init=False)
    model_name: str | None = field(default=None, init=False)
    num_parameters: int | None = field(default=None, init=False)
    eval_results: list[EvalResult] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for name in _GIVEN_TEXTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name}: expected a str, got {type(value).__name__} {value!r}.")
        for name in _GIVEN_LISTS:
            value = getattr(self, name)
            values = [value] if isinstance(value, str) else value
            if values is not None and not (isinstance(values, list | tuple) and all(isinstance(one, str) for one in values)):
                raise TypeError(f"{name}: expected a str or a list of them, got {value!r}.")
        if not isinstance(self.results, Mapping):
            raise TypeError(f"results: expected a dict as in results.json, got {type(self.results).__name__}.")
        self.results = dict(self.results)  # training fills it

    def compute(self, model: LPSPreTrainedModel | LPSConfig) -> "LPSModelCardData":
        """Fill in what follows from a model, or from a configuration alone, and from the results.

        Args:
            model: The model, or its configuration; the head is then that of `architectures`.

        Returns:
            This object.

        Raises:
            TypeError: If it is neither.
            ValueError: If `architectures` names no class of lps_hf.
        """
        config = getattr(model, "config", model)
        if not isinstance(config, LPSConfig):
            raise TypeError(f"model: expected a model of lps_hf or its LPSConfig, got {type(model).__name__}.")
        self.config = config
        self.head = type(model).__name__ if config is not model else (config.architectures or ["LPSModel"])[0]
        if self.head not in MODEL_AUTO_CLASSES:
            raise ValueError(f"model: expected a class of lps_hf such as LPSForGraphClassification, got {self.head!r}.")
        self.num_parameters = _count_parameters(model, self.head)
        named = self.results.get("task")
        self.task = named if named in TASK_COLUMNS else task_of(config) if self.head != "LPSModel" else None
        self.pipeline_tag = _PIPELINE_TAGS.get(self.task or "", "graph-ml" if has_nodes(config) else "other")
        kind = f"{'Plain' if config.distribution == 'none' else 'Symmetrized'} {family_of(config)}"
        described = f"{kind} for {self.task_name}" if self.task else kind
        self.model_name = self.model_id.rsplit("/", 1)[-1] if self.model_id else described
        if self.task is not None:
            self.eval_results = eval_results(self.results, config, self.pipeline_tag, self.task_name, self._dataset_id())
        return self

    def _dataset_id(self) -> str | None:
        """Hub id of the data that was evaluated on: of a folder, that which is given, if it is one."""
        dataset, given = self.results.get("dataset") or {}, _as_list(self.datasets)
        if is_hub_id(dataset.get("name")) and not (dataset.get("generated") or dataset.get("local")):
            return dataset["name"]
        return given[0] if len(given) == 1 and not dataset.get("generated") else None

    @property
    def computed_config(self) -> LPSConfig:
        """The configuration.

        Raises:
            ValueError: If nothing has been computed yet.
        """
        if self.config is None:
            raise ValueError("card data: nothing is known of the model yet. Call compute(model) first.")
        return self.config

    @property
    def task_name(self) -> str:
        """The task in words."""
        name = (self.task or "any task").replace("-", " ")
        is_regression = self.computed_config.problem_type == "regression"
        return name.replace("classification", "regression") if is_regression else name

    def to_dict(self) -> dict[str, Any]:
        """The header of the card, in the form of the Hub's metadata."""
        config = self.computed_config
        backbone, dataset_id = self.results.get("backbone"), self._dataset_id()
        header = ModelCardData(
            language=_as_plain(self.language),
            license=self.license,
            license_name=self.license_name,
            license_link=self.license_link,
            library_name="transformers",
            pipeline_tag=self.pipeline_tag,
            tags=[*TAGS, *(["equivariance", config.group] if config.distribution != "none" else []), *_as_list(self.tags)],
            base_model=_as_plain(self.base_model) or (backbone if is_hub_id(backbone) else None),
            datasets=_as_list(self.datasets) or ([dataset_id] if dataset_id else None),
            metrics=[self.results["metric"]] if self.eval_results and self.results.get("metric") else None,
            model_name=self.model_name if self.eval_results else None,
            eval_results=self.eval_results or None,
        )
        return header.to_dict()

    def render(self) -> ModelCard:
        """Make the card.

        Returns:
            `huggingface_hub.ModelCard`: `str()` is its text, `save(file)` writes it.

        Raises:
            ValueError: If nothing has been computed yet.
        """
        environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        text = environment.from_string(TEMPLATE).render(self._context())
        return ModelCard(re.sub(r"\n{3,}", "\n\n", text))

    def _context(self) -> dict[str, Any]:
        """What the template reads."""
        config, equivariance = self.computed_config, _Known(self.results.get("equivariance") or {})
        results = _Known({**self.results, "equivariance": equivariance})
        metrics, spread = metric_rows(results), spread_of(results)
        return {
            "header": self.to_yaml(),
            "title": self.model_name,
            "repo": self.model_id or PLACEHOLDER,
            "license": self.license,
            "no_license": NO_LICENSE,
            "notes": self.notes,
            "figure": self.figure,
            **self._words(),
            # What the model is.
            "config": config,
            "head": self.head,
            "auto_class": MODEL_AUTO_CLASSES[self.head],
            "pipeline_task": pipeline_task_of(config, self.head),
            "symmetry": symmetry_of(config),
            "is_symmetrized": config.distribution != "none",
            "is_canonical": config.distribution == "canonical",
            "is_random": is_random(config),
            "has_nodes": has_nodes(config),
            "interpolates": interpolates(config),
            "output_law": output_law(config),
            "distribution": distribution_in_words(config),
            "inputs": input_table(config),
            "outputs": output_table(config, self.head),
            "classes": class_names(config) if "Classification" in self.head else [],
            "example": example_row(config),
            # What was measured.
            "results": results,
            "metrics": metrics,
            "metric_name": metric_name(str(results["metric"])) if results["metric"] else "metric",
            "headline": headline(results),
            "has_baseline": any(row["baseline"] for row in metrics),
            "has_scratch": any(row["scratch"] for row in metrics),
            "baseline_name": results["baseline_name"] or "without looking at the input",
            "deviates": deviates_on_all_rows(results),
            "spread": spread,
            "spread_error": number(spread["error"]) if spread and "error" in spread else "",
            "spread_bound": number(spread["bound"]) if spread and "bound" in spread else "",
            "samples": sample_rows(results),
            "report_time": f"{float(results['report_time_share'] or 0):.0%}",
            "starts_above": starts_above_backbone(results),
            "equivariance": equivariance_facts(results),
            "training": training_rows(results),
            "environment": environment_rows(results),
        }

    def _words(self) -> dict[str, str]:
        """Parts of sentences."""
        config, results = self.computed_config, self.results
        size = ""
        if self.num_parameters:
            millions = self.num_parameters >= 1e6
            size = f" of {f'{self.num_parameters / 1e6:.1f} million' if millions else f'{self.num_parameters:,}'} parameters"
        started = ""
        if results.get("backbone"):
            started = f", pretrained as {_as_link(results['backbone'], '')}"
        elif self.base_model:
            started = f", pretrained as {' and '.join(_as_link(name, '') for name in _as_list(self.base_model))}"
        elif "backbone" in results:
            started = ", trained from random weights"
        dataset = results.get("dataset") or {}
        name, fold = dataset.get("name"), dataset.get("fold")
        dataset_id = self._dataset_id()
        described = f"generated data ({name})" if dataset.get("generated") else f"`{name}`"
        described = _as_link(dataset_id, "datasets/") if dataset_id else described if name else ""
        split = "test" if fold is not None else dataset.get("split")
        rows = f"{split} rows" if split else "rows"
        count, samples = results.get("num_test"), results.get("num_eval_samples")
        cut = f", fold {fold} of {dataset.get('num_folds')} in a seeded cut" if fold is not None else ""
        baseline = next((row["baseline"] for row in metric_rows(results)), "")
        sampled = is_random(config) and samples is not None
        many = "as many samples as each needs" if samples == "auto" else f"{samples} sample{'s' * (samples != 1)} for each"
        return {
            "backbone": f"{family_of(config)}{size}{started}",
            "dataset": described,
            "dataset_cut": described + cut,
            "for_task": f", for {self.task_name}{f' on {described}' if described else ''}" if self.task else "",
            "of_dataset": f" of {described}{cut}" if described else "",
            "on_rows": f" on {count} {rows}" if count else "",
            "with_samples": f", with {many}" if sampled else "",
            "beside_baseline": f"; {results.get('baseline_name') or 'without looking at the input'}: {baseline}"
            if baseline
            else "",
        }


class _Known(dict):
    """A dict whose missing keys are `None`: a card leaves out what it does not know."""

    def __missing__(self, key: str) -> None:
        return None


def make_model_card(
    model: LPSPreTrainedModel | LPSConfig,
    results: Mapping[str, Any] | None = None,
    *,
    model_id: str | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    language: str | Sequence[str] | None = None,
    base_model: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
    notes: str | None = None,
    figure: str | None = None,
) -> ModelCard:
    """Make the card of a model from its configuration and its results.

    Args:
        model: The model, or its configuration, whose `architectures` then name the head.
        results: What `results.json` holds.
        model_id: As in `LPSModelCardData`, likewise the others.
        license: The licence of the weights; without one the card says that none was given.
        license_name: Name of a licence of one's own.
        license_link: Where it stands.
        language: Language of the data.
        base_model: Hub id of the pretrained backbone.
        datasets: Hub ids of the data.
        tags: More tags.
        notes: A paragraph of your own.
        figure: File name of the figure beside the card.

    Returns:
        `huggingface_hub.ModelCard`: `str()` is its text, `save(file)` writes it.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the model's class is unknown.
    """
    data = LPSModelCardData(
        model_id=model_id,
        license=license,
        license_name=license_name,
        license_link=license_link,
        language=_as_plain(language),
        base_model=_as_plain(base_model),
        datasets=_as_plain(datasets),
        tags=_as_plain(tags),
        notes=notes,
        figure=figure,
        results=dict(results or {}),
    )
    return data.compute(model).render()


def is_own_card(file: Path) -> bool:
    """Whether a file is a card that this module made, as its last line says."""
    return file.is_file() and file.read_text(encoding="utf-8").rstrip().endswith(OWN_MARK)


def complete_card(
    card: ModelCard | str,
    *,
    model_id: str | None = None,
    license: str | None = None,
    base_model: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
) -> ModelCard:
    """Put what was not known when a card was made into a finished card, which somebody may have edited.

    Args:
        card: The card, or its text; it may have been written by hand.
        model_id: The repository: where the card says how to load the model from its folder, it names this.
        license: Licence of the weights; the sentence that none was given goes.
        base_model: Hub id of the pretrained backbone.
        datasets: Hub ids of the data.
        tags: Tags beside those that are there.

    Returns:
        `huggingface_hub.ModelCard`: A new one.
    """
    text = str(card)
    if model_id is not None:
        text = text.replace(PLACEHOLDER, model_id)
    if license is not None:
        text = text.replace(f"{NO_LICENSE}\n", "")
    completed = ModelCard(text, ignore_metadata_errors=True)  # somebody's header may be wrong
    given = {"license": license, "base_model": base_model, "datasets": datasets}
    for name, value in given.items():
        if value is not None:
            completed.data[name] = _as_plain(value)
    if tags is not None:
        completed.data["tags"] = list(dict.fromkeys([*(completed.data.get("tags") or []), *_as_list(tags)]))
    return completed


def _count_parameters(model: LPSPreTrainedModel | LPSConfig, head: str) -> int:
    if isinstance(model, LPSConfig):
        with torch.device("meta"):  # no memory, no random numbers
            model = getattr(modeling_heads_lps, head, modeling_lps.LPSModel)(model)
    return sum(parameter.numel() for parameter in model.parameters())


def _as_link(name: str, prefix: str) -> str:
    """A link to the Hub; the name of a folder as it is."""
    return f"[{name}](https://huggingface.co/{prefix}{name})" if is_hub_id(name) else f"`{name}`"


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _as_plain(value: str | Sequence[str] | None) -> str | list[str] | None:
    return value if value is None or isinstance(value, str) else list(value)
