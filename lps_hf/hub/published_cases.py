"""The experiments that the published implementation (jw9730/lps, commit c03c9a4) has checkpoints of, as facts.

A checkpoint holds tensors and few options. What the tensors do not tell is taken, the later the stronger, from the published
configuration of the experiment, from the name of the run's folder, which lists options, and from hyper-parameters in the file.
All are written in the published vocabulary (`sample_size`, `tau`, …), and `config_fields` translates them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lps_hf.models.modeling_heads_lps import PARTICLE_DEFAULTS

PEPTIDES_ATOMS, PEPTIDES_BONDS = [17, 3, 7, 7, 5, 1, 6, 2, 2], [4, 1, 2]
PCQM_ATOMS, PCQM_BONDS = [35, 3, 7, 7, 2, 4, 6, 2, 2], [4, 1, 1]


@dataclass(frozen=True)
class PublishedCase:
    """One experiment.

    Args:
        title: What it is.
        head: Name of our class.
        network: The base function: `"vit"`, `"transformer"`, `"gnn"` or `"mlp"`.
        config: Fields of `LPSConfig` that belong to the task.
        options: The published options, in the published vocabulary.
        source: Where these facts are in the published repository.
        notes: What a user of the converted model has to know.
    """

    title: str
    head: str
    network: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    source: str
    notes: tuple[str, ...] = ()


_LIGHTNING = {
    "interface": "prob",
    "sample_size": 1,
    "eval_sample_size": 10,
    "noise_scale": 1.0,
    "tau": 0.01,
    "hard": True,
    "entropy_loss_scale": 0.1,
    "interface_dropout": 0.1,
    "centering": False,
    "pad_mode": "zero",
}
_NBODY = {
    "interface": "prob",
    "symmetry": "SnxO3",
    "sample_size": 20,
    "eval_sample_size": 20,
    "noise_scale": 1.0,
    "tau": 0.1,
    "hard": True,
    "fixed_noise": False,
    "entropy_loss_scale": 0.1,
    "vnn_hidden_dim": 64,
    "vnn_k_nearest_neighbors": 4,
    "vnn_dropout": 0.08,
    "transformer_n_head": 4,
    "transformer_dropout": 0.0,
}
_EXP = {
    "interface": "prob",
    "sample_size": 10,
    "eval_sample_size": 10,
    "noise_scale": 1.0,
    "tau": 0.01,
    "hard": True,
    "fixed_noise": False,
    "entropy_loss_scale": 0.1,
}
_DROPPED_AT_EVALUATION = (
    "The published code drops patches at evaluation too; here they are dropped in training only, so its recorded figures are not "
    "exactly these."
)
_NBODY_PARTICLES = {**PARTICLE_DEFAULTS, "max_nodes": 5}

PUBLISHED_CASES = {
    "pattern": PublishedCase(
        "PATTERN: node classification by a ViT that reads nodes on the diagonal of the adjacency matrix",
        *("LPSForNodeClassification", "vit"),
        config={
            "inputs": {"node_features": "n 3", "edge_features": "n n 1"},
            "node_features_on_diagonal": True,
            "output": "n n 2",
            "num_labels": 2,
            "max_nodes": 188,
            "class_weighted": True,
        },
        options=_LIGHTNING,
        source="configs/node_classification_pattern, src/data/node_classification_pattern.py",
        notes=("Rows hold the one-hot type of each node as node_feat (3 numbers) and edges without features.",),
    ),
    "peptides-func": PublishedCase(
        "Peptides-func: ten labels of a molecule by a ViT",
        *("LPSForGraphClassification", "vit"),
        config={
            "node_categories": PEPTIDES_ATOMS,
            "edge_categories": PEPTIDES_BONDS,
            "num_labels": 10,
            "problem_type": "multi_label_classification",
            "max_nodes": 444,
        },
        options={**_LIGHTNING, "centering": True, "pad_mode": "reflect", "patch_dropout": 0.5},
        source="configs/graph_classification_peptides_func, src/data/graph_classification_peptides_func.py",
        notes=(_DROPPED_AT_EVALUATION,),
    ),
    "peptides-struct": PublishedCase(
        "Peptides-struct: eleven numbers of a molecule by a ViT",
        *("LPSForGraphClassification", "vit"),
        config={
            "node_categories": PEPTIDES_ATOMS,
            "edge_categories": PEPTIDES_BONDS,
            "num_labels": 11,
            "problem_type": "regression",
            "max_nodes": 444,
        },
        options={**_LIGHTNING, "centering": True, "pad_mode": "circular"},
        source="configs/graph_regression_peptides_struct, src/data/graph_regression_peptides_struct.py",
        notes=(
            "Published training dropped a new share of patches, up to half, at every step; here patch_dropout is one number, 0 "
            "unless you give it.",
            "Published training took the absolute error as loss, here it is the squared one.",
            _DROPPED_AT_EVALUATION,
        ),
    ),
    "pcqm-contact": PublishedCase(
        "PCQM-Contact: links between distant atoms by a ViT",
        *("LPSForLinkPrediction", "vit"),
        config={
            "node_categories": PCQM_ATOMS,
            "edge_categories": PCQM_BONDS,
            "output": "n n 1",
            "num_labels": 1,
            "max_nodes": 53,
        },
        options={**_LIGHTNING, "sample_size": 10, "interface_dropout": 0.0},
        source="configs/link_prediction_pcqm_contact, src/data/link_prediction_pcqm_contact.py",
    ),
    "nbody-transformer": PublishedCase(
        "n-body: later positions of five charged particles by a transformer on pairs",
        *("LPSForParticleDynamics", "transformer"),
        config=_NBODY_PARTICLES,
        options=_NBODY,
        source="src_synthetic/nbody/args.py",
    ),
    "nbody-gnn": PublishedCase(
        "n-body: later positions of five charged particles by a graph network",
        *("LPSForParticleDynamics", "gnn"),
        # Positions from the centroid, to which the group moves them back, and not differences.
        config={**_NBODY_PARTICLES, "residual": None},
        options={**_NBODY, "symmetry": "O3"},
        source="src_synthetic/nbody/args.py, scripts/nbody_gnn_ps.sh",
    ),
    "exp-classify": PublishedCase(
        "EXP-classify: satisfiable or not, by an MLP on the flattened graph",
        *("LPSForGraphClassification", "mlp"),
        config={"num_labels": 1, "problem_type": "multi_label_classification"},
        options=_EXP,
        source="src_synthetic/graph_separation/args.py, exp_classify.py",
        notes=("Rows hold the type of each node and its degree as node_feat, and edges without features.",),
    ),
}
"""Experiments by name."""

GROUPS = {"SnxO3": "S_n x E(3)", "SnxSO3": "S_n x SE(3)", "O3": "E(3)", "SO3": "SE(3)"}
"""Published groups, which positions are centred for, and ours, which translations belong to."""

DISTRIBUTIONS = {"unif": "haar", "frame": "frame"}


@dataclass
class Settings:
    """Published options, and where each was found."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def update(self, options: Mapping[str, Any], source: str) -> None:
        """Take in options that count more than those that are there."""
        self.values |= options
        self.sources |= dict.fromkeys(options, source)


def read_run_name(name: str, network: str) -> dict[str, Any]:
    """The options that the folder of a run lists, such as `k_1,eval_k_10,z_1.0,tau_0.01,hard,drop_0.1,…`.

    Args:
        name: The folder's name, made by `get_config` (ViT) or `configure_experiment_name` (n-body, EXP) of the published code.
        network: As in `PublishedCase`.

    Returns:
        `dict`: Options in the published vocabulary. Those that the code leaves out where they have their default are filled in.
    """
    parts = [part for part in name.split(",") if part]
    numbers: dict[str, float] = {}
    for part in parts:
        key, _, text = part.rpartition("_")
        try:
            numbers[key] = float(text)
        except ValueError:
            continue
    options: dict[str, Any] = {}
    keys = {"k": "sample_size", "z": "noise_scale", "z_scale": "noise_scale", "tau": "tau", "entropy": "entropy_loss_scale"}
    keys |= {"drop": "interface_dropout"} if network == "vit" else {"drop": "transformer_dropout", "h": "transformer_n_head"}
    options |= {option: numbers[key] for key, option in keys.items() if key in numbers}
    if "k" in numbers:
        options["eval_sample_size"] = numbers.get("eval_k", numbers["k"])
    options["interface"] = "unif" if "ga" in parts else "frame" if "fa" in parts else "prob"
    if options["interface"] == "prob":
        options["hard"] = "hard" in parts
        if network != "vit":
            options["fixed_noise"] = "fix" in parts
    symmetry = next((part.removeprefix("g_") for part in parts if part.startswith("g_")), None)
    if symmetry is not None:
        options["symmetry"] = symmetry
    vectors = next((part.split("_") for part in parts if part.startswith("vnn_d")), None)
    if vectors is not None and len(vectors) == 4:  # "vnn_d64_knn4_drop0.08"
        for option, prefix, text in zip(_VECTOR_OPTIONS, ("d", "knn", "drop"), vectors[1:], strict=True):
            options[option] = float(text.removeprefix(prefix))
    whole = ("sample_size", "eval_sample_size", "transformer_n_head", "vnn_hidden_dim", "vnn_k_nearest_neighbors")
    return {key: int(value) if key in whole else value for key, value in options.items()}


_VECTOR_OPTIONS = ("vnn_hidden_dim", "vnn_k_nearest_neighbors", "vnn_dropout")


def known_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The published options among the hyper-parameters of a file; others are about training.

    Raises:
        ValueError: If one is no value of its kind.
    """
    examples = {name: value for case in PUBLISHED_CASES.values() for name, value in case.options.items()}
    options = {name: value for name, value in given.items() if name in examples and value is not None}
    for name, value in options.items():
        kind = type(examples[name])
        if not (type(value) is kind or (kind is float and type(value) is int)):
            raise ValueError(f"hyper_parameters: expected a {kind.__name__} in {name!r}, as in published files, got {value!r}.")
    return options


def config_fields(settings: Settings, distribution: str | None = None) -> dict[str, tuple[Any, str]]:
    """The options as fields of `LPSConfig`, each with where it was found.

    Args:
        settings: Options in the published vocabulary.
        distribution: One of ours, where the user has chosen it.

    Returns:
        `dict`: Value and source by field; `interface_config` and `backbone_config` are made by `conversion` from the tensors.

    Raises:
        ValueError: If an option says something that there is nothing like here.
    """
    values, sources = settings.values, settings.sources
    fields: dict[str, tuple[Any, str]] = {}
    if distribution is None:
        distribution, source = _distribution(values, sources)
        fields["distribution"] = distribution, source
    names = {
        "sample_size": "num_samples",
        "eval_sample_size": "num_eval_samples",
        "tau": "temperature",
        "entropy_loss_scale": "entropy_loss_coef",
        "centering": "centered_padding",
        "pad_mode": "padding_mode",
        "patch_dropout": "patch_dropout",
        **({"noise_scale": "noise_scale"} if distribution == "learned" and values["noise_scale"] else {}),
    }
    fields |= {ours: (values[name], sources[name]) for name, ours in names.items() if values.get(name) is not None}
    if distribution == "canonical":
        fields["num_eval_samples"] = 1, "all samples are the same"
    if "symmetry" in values:
        symmetry = values["symmetry"]
        if symmetry not in GROUPS:
            raise ValueError(
                f"symmetry: expected one of {', '.join(GROUPS)}, got {symmetry!r} ({sources['symmetry']}). Particles have no "
                "such group here."
            )
        fields["group"] = GROUPS[symmetry], sources["symmetry"]
    return fields


def _distribution(values: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[str, str]:
    interface = values["interface"]
    if interface in DISTRIBUTIONS:
        return DISTRIBUTIONS[interface], sources["interface"]
    if interface != "prob":
        raise ValueError(
            f"interface: expected 'prob', 'unif' or 'frame', got {interface!r} ({sources['interface']}). Give "
            "distribution=, one of LPSConfig."
        )
    for option, wanted, reason in (
        ("hard", True, "A model of soft permutations is no average over group elements"),
        ("fixed_noise", False, "Noise tied to the numbers of nodes is not equivariant"),
    ):
        if values.get(option, wanted) != wanted:
            raise ValueError(
                f"{option}: expected {wanted}, got {values[option]} ({sources[option]}). {reason}; give "
                "distribution='learned' to convert the weights all the same."
            )
    return "learned" if values["noise_scale"] else "canonical", sources["noise_scale"]
