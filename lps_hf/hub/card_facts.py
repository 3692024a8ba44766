"""What a configuration says of a model, in the words and tables of its card."""

from copy import copy
from typing import NamedTuple

from lps_hf.auto import pipelines_of
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.groups import get_group
from lps_hf.models.orthogonal_groups import (
    EuclideanGroup,
    OrthogonalGroup,
    SpecialEuclideanGroup,
    SpecialOrthogonalGroup,
    UnitaryGroup,
)
from lps_hf.models.plane_groups import CyclicGroup, DihedralGroup
from lps_hf.models.row_labels import label_kind
from lps_hf.models.symmetric_group import SymmetricGroup

# Names of backbone families, where they are written in another way than `model_type` in capitals.
FAMILY_NAMES = {
    "beit": "BEiT",
    "clip_vision_model": "CLIP vision tower",
    "deit": "DeiT",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2 with registers",
    "dinov3_vit": "DINOv3 ViT",
    "lps_gin_id": "message-passing network on ranked nodes",
    "lps_mlp": "MLP",
    "lps_pair_transformer": "small transformer on pairs of nodes",
    "lps_particle_gnn": "small particle network",
    "modernbert": "ModernBERT",
    "resnet": "ResNet",
    "roberta": "RoBERTa",
    "siglip_vision_model": "SigLIP vision tower",
    "vit": "ViT",
    "vit_mae": "ViT-MAE",
}
# What elements of a group do, by the group's class; {} is its number.
_ACTIONS = {
    SymmetricGroup: "permutations of the nodes",
    OrthogonalGroup: "rotations and reflections in {} dimensions",
    SpecialOrthogonalGroup: "rotations in {} dimensions",
    EuclideanGroup: "rotations, reflections and translations in {} dimensions",
    SpecialEuclideanGroup: "rotations and translations in {} dimensions",
    UnitaryGroup: "unitary maps of {} complex dimensions",
}
_MASK = ("true on nodes, which come before padding", "made by the processor")
_LABEL_EXAMPLES = {"graph": '"y": [{}]', "link": '"edge_label_index": [[0], [1]], "edge_label": [1]', "image": '"label": 0'}


class Example(NamedTuple):
    """Code that makes one row which the model takes."""

    imports: str
    """Lines to put first, or nothing."""
    row: str
    """A line for every key, for a dict display."""
    label: str
    """The key and value of its label."""


def pipeline_task_of(config: LPSConfig, head: str) -> str | None:
    """The task of `transformers.pipeline` for a head; `None` for none."""
    config = copy(config)
    config.architectures = [head]
    return next(iter(pipelines_of(config)), None)


def family_of(config: LPSConfig) -> str:
    """Name of the backbone's family, such as "ViT"."""
    model_type = getattr(config.backbone_config, "model_type", "vit")
    return FAMILY_NAMES.get(model_type, model_type.upper().replace("_", " "))


def symmetry_of(config: LPSConfig) -> str:
    """What the group's elements do, such as "permutations of the nodes"."""
    words = []
    for factor in get_group(config.group).factors:
        if isinstance(factor, CyclicGroup | DihedralGroup):
            number = factor.num_rotations
            turns = {1: "the identity", 2: "half turns of images", 4: "quarter turns of images"}
            reflections = "reflections and " if isinstance(factor, DihedralGroup) else ""
            words.append(reflections + turns.get(number, f"turns of images by 1/{number} of a circle"))
        else:
            words.append(_ACTIONS.get(type(factor), f"the group {factor.name}").format(factor.dimension))
    return ", and ".join(words)


def is_random(config: LPSConfig) -> bool:
    """Whether group elements are drawn for each call, so that averages over more of them differ from those over fewer."""
    return config.distribution in ("learned", "frame", "haar")


def interpolates(config: LPSConfig) -> bool:
    """Whether some elements of the group fall between the pixels of an image."""
    planes = [f for f in get_group(config.group).factors if isinstance(f, CyclicGroup | DihedralGroup)]
    return any(factor.num_rotations not in (1, 2, 4) for factor in planes)


def has_nodes(config: LPSConfig) -> bool:
    """Whether an input has a node axis."""
    return any(axes.count("n") for axes in config.input_representations.values())


def output_law(config: LPSConfig) -> str:
    """What happens to the output when a group element moves the input."""
    letters = config.output_representation.letters & get_group(config.group).letters
    if not letters:
        return "The output is invariant: φ(g · x) = φ(x)."
    moves = [("n", "is renumbered with the nodes"), ("v", "turns with the input"), ("p", "moves with the input in space")]
    how = " and ".join(words for letter, words in moves if letter in letters)
    return f"The output is equivariant, it {how}: φ(g · x) = g · φ(x)."


def distribution_in_words(config: LPSConfig) -> str:
    """How group elements are drawn."""
    points = "v" in {factor.score_letter for factor in get_group(config.group).factors}
    graphs = (
        "the Laplacian's eigenvectors" if config.frame == "laplacian" else "a canonical labelling"
    ) + " of the graph order the nodes"
    frame = "the principal axes of the points are the frame" if points else graphs
    finite = "c" if get_group(config.group).factors[0].score_letter == "g" else ""
    return {
        "learned": "p(g | x) is learned: an equivariant network draws g from the input and noise.",
        "canonical": "p(g | x) is one learned pose for every input: an equivariant network chooses g."
        + (" Ties between nodes that the network cannot tell apart are broken at random." if has_nodes(config) else ""),
        "frame": f"p(g | x) is uniform on a predefined frame: {frame}.",
        "haar": "p(g | x) is uniform over the group: plain group averaging, nothing is learned about g.",
        "exact": "The average is taken over every element of the group: nothing is drawn, and no randomness is left."
        if finite
        else f"The average is taken over every element of a predefined frame, and nothing is drawn: {frame}."
        + (" Where several variances are equal the frame is infinite: axes are drawn, and there is an error bar." * bool(points)),
        "none": "The distribution is `none`: g is always the identity, and φ is the bare backbone. **It is not equivariant.**",
    }[config.distribution]


def input_table(config: LPSConfig) -> list[tuple[str, str, str, str]]:
    """Key, shape and type, representation, and where it comes from in a row, of everything that `forward` wants."""
    dimension = get_group(config.group).dimension
    rows: list[tuple[str, str, str, str]] = []
    for name, axes in config.input_representations.items():
        text, channels = f"`{axes}`", axes.num_channels
        if name == "node_features" and config.node_categories:
            count = len(config.node_categories)
            rows.append(("node_categories", f"(batch, nodes, {count}) int64", f"{text}, one-hot inside the model", "node_feat"))
        elif name == "node_features":
            constant = ", a constant where there are none" if channels == 1 else ""
            rows.append((name, f"(batch, nodes, {channels}) float32", text + constant, "node_feat"))
        elif name == "edge_features":
            rows.append(("edge_index", "(batch, 2, edges) int64", "the ends of every edge", "edge_index"))
            if config.edge_categories:
                shape = f"(batch, edges, {len(config.edge_categories)}) int64"
                rows.append(("edge_categories", shape, f"{text}, a channel that marks edges and one-hot categories", "edge_attr"))
            elif channels > 1:
                rows.append((name, f"(batch, edges, {channels}) float32", text, "edge_attr"))
            else:
                rows[-1] = (*rows[-1][:2], f"{text}, the adjacency matrix", "edge_index")
            rows.append(("edge_mask", "(batch, edges) bool", "true on edges", "made by the processor"))
        elif name in ("positions", "velocities"):
            rows.append((name, f"(batch, nodes, {dimension}) float32", text, name))
        elif name == "charges":
            rows.append((name, f"(batch, nodes, {channels}) float32", text, name))
        elif name == "pair_features":
            made = "squared distances" if channels == 1 else "products of charges, squared distances"
            rows.append((name, "computed inside the model", f"{text}, {made}", "positions" + (", charges" * (channels > 1))))
            if channels > 1 and "charges" not in config.input_representations:
                rows.append(("charges", "(batch, nodes, 1) float32", "read by `pair_features`", "charges"))
        elif name == "pixel_values":
            rows.append((name, f"(batch, {channels}, height, width) float32", text, "image"))
    if has_nodes(config):
        rows.append(("node_mask", "(batch, nodes) bool", *_MASK))
    if config.distribution in ("frame", "exact") and set(config.input_representations) <= {"node_features", "edge_features"}:
        rows.append(("frame_ranks", "(batch, nodes) int64", "ranks of the nodes in the frame", "made by the processor"))
    return rows


def output_table(config: LPSConfig, head: str) -> list[tuple[str, str, str, str]]:
    """Key, shape, representation and meaning of the outputs."""
    axes, dimension = config.output_representation, get_group(config.group).dimension
    names = {"n": "nodes", "v": str(dimension), "p": str(dimension)}
    shape = "(" + ", ".join(["batch", *(str(names.get(str(axis), axis)) for axis in axes.axes)]) + ")"
    meaning = {
        "LPSForNodeClassification": "a score for every class of every node",
        "LPSForLinkPrediction": "a score for every ordered pair of nodes; with `pair_index` (batch, pairs), of those pairs",
        "LPSForParticleDynamics": "positions in the unit of the input",
        "LPSModel": "the output of φ",
    }.get(head, "targets in the unit of the data" if config.problem_type == "regression" else "a score for every class")
    if head == "LPSForNodeClassification":
        shape = f"(batch, nodes, {config.num_labels})"
    elif head == "LPSForLinkPrediction":
        shape = "(batch, nodes, nodes)"
    elif config.problem_type == "multi_label_classification":
        meaning = "a score for every label, each of its own"
    rows = [("output" if head == "LPSModel" else "logits", shape, f"`{axes}`", meaning)]
    if config.distribution not in ("exact", "none"):
        rows.append(("standard_error", shape, "of the same", "Monte-Carlo error of the average; `None` for one sample"))
    return rows


def class_names(config: LPSConfig, most: int = 20) -> list[str]:
    """Names of the classes, if they have names and are not too many to list."""
    labels: dict = config.id2label or {}
    names = [str(labels[index]) for index in sorted(labels)]
    numbers = [name.removeprefix("LABEL_") for name in names]
    says_nothing = config.problem_type == "regression" or numbers == [str(index) for index in range(len(names))]
    return [] if says_nothing or len(names) > most else names


def example_row(config: LPSConfig) -> Example:
    """A small row that fits the configuration, as code."""
    axes, dimension = config.input_representations, get_group(config.group).dimension or 3
    kind = label_kind(config.output_representation, axes)
    if "pixel_values" in axes:
        image = '    "image": Image.open("picture.png").convert("RGB"),'
        return Example("from PIL import Image\n", image, _LABEL_EXAMPLES["image"])
    count = min(3, config.max_nodes)
    corners = [[float(place + 1 == node) for place in range(dimension)] for node in range(count)]
    lines = []
    if not axes.keys() & {"positions", "velocities", "pair_features"} or "edge_features" in axes:
        edges = "[[0, 1, 1, 2], [1, 0, 2, 1]]" if count == 3 else "[[], []]" if count == 1 else "[[0, 1], [1, 0]]"
        lines += [f'"edge_index": {edges}', f'"num_nodes": {count}']
    if config.node_categories:
        lines.append(f'"node_feat": [{_zeros(len(config.node_categories), "0")}] * {count}')
    elif "node_features" in axes and axes["node_features"].num_channels > 1:
        lines.append(f'"node_feat": [{_zeros(axes["node_features"].num_channels, "0.0")}] * {count}')
    if "edge_features" in axes and (config.edge_categories or axes["edge_features"].num_channels > 1):
        categories = config.edge_categories
        feature = _zeros(len(categories), "0") if categories else _zeros(axes["edge_features"].num_channels, "0.0")
        lines.append(f'"edge_attr": [{feature}] * {(0, 0, 2, 4)[count]}')
    if axes.keys() & {"positions", "pair_features"}:
        lines.append(f'"positions": {corners}')
    if "velocities" in axes:
        lines.append(f'"velocities": [{_zeros(dimension, "0.0")}] * {count}')
    if "charges" in axes or ("pair_features" in axes and axes["pair_features"].num_channels > 1):
        lines.append(f'"charges": [1.0] * {count}')
    if kind == "node":
        label = f'"y": [0] * {count}'
    elif kind == "position":
        label = f'"target_positions": {corners}'
    elif kind == "graph" and config.problem_type in ("regression", "multi_label_classification"):
        label = f'"y": {_zeros(config.num_labels or 1, "0.0" if config.problem_type == "regression" else "0")}'
    else:
        label = _LABEL_EXAMPLES.get(kind or "graph", "").format(0)
    return Example("", "\n".join(f"    {line}," for line in lines), label)


def _zeros(count: int, zero: str) -> str:
    return f"[{zero}] * {count}" if count > 4 else f"[{', '.join([zero] * count)}]"
