"""What the card of a made data set says of its kind, in words."""

from typing import NamedTuple

GENERATED_LICENSE = "cc0-1.0"
"""Licence of generated rows, which are numbers that anybody can draw again."""
UNKNOWN_LICENSE = "unknown"


class KindText(NamedTuple):
    """What a card says of one kind, beside what the rows tell."""

    title: str
    what: str
    """What a row is, and how it was made."""
    reached: str = ""
    """What can be reached, and what cannot."""
    cite: str = ""
    license: str = GENERATED_LICENSE


_REGULAR = (
    "All graphs of one size are regular of one degree and look alike to colour refinement (1-WL), so that every network that "
    "passes messages along edges can only guess."
)

# By the names of `DATASET_KINDS`.
KIND_TEXTS = {
    "circular-skip-links": KindText(
        title="Circular skip links",
        what="A cycle, and a link from every node to the node `skip` steps further; the class is the skip. There is one "
        "graph per class, in a random order of its nodes: the question is whether a model tells the classes apart in "
        "every order.",
        reached=f"{_REGULAR} An equivariant network that sees more than 1-WL can reach 100 %.",
        cite="Murphy, Srinivasan, Rao, Ribeiro: Relational Pooling for Graph Representations. ICML 2019 (arXiv 1903.02541).",
    ),
    "cycle-pairs": KindText(
        title="Pairs of cycles",
        what="One cycle of 2n nodes (class 0), or two cycles of n nodes (class 1), in a random order of the nodes. Rows 2i "
        "and 2i + 1 share one n, so that the size says nothing about the class.",
        reached=f"{_REGULAR} Whether the graph is connected decides, so 100 % can be reached.",
    ),
    "triangle-regular": KindText(
        title="Triangles in random 3-regular graphs",
        what="A 3-regular graph, uniform over those of its class; the class is whether it has a triangle (1) or none (0). "
        "Test graphs are new graphs.",
        reached=f"{_REGULAR} The class is a property of the graph, so 100 % can be reached.",
        cite="After the node task of Sato, Yamada, Kashima: Random Features Strengthen Graph Neural Networks. SDM 2021 "
        "(arXiv 2002.03155).",
    ),
    "pattern": KindText(
        title="PATTERN",
        what="Communities of a stochastic block model, and a further random graph, the pattern, that is joined to all of "
        "them; every node has a random colour. The class of a node is whether it belongs to the pattern.",
        reached="Communities are random, so that no model can be right about every node.",
        cite="Dwivedi, Joshi, Luu, Laurent, Bengio, Bresson: Benchmarking Graph Neural Networks (arXiv 2003.00982), of whose"
        " benchmark these are new graphs by the same rule.",
    ),
    "contacts": KindText(
        title="Contacts in folded chains",
        what="A chain that is folded in the plane and never meets itself: it turns by 60° to one side at nodes of category "
        "1, to the other at nodes of category 2. A pair of nodes at least 3 bonds apart has label 1 where it is closer "
        "than the cutoff.",
        reached="The row tells the fold, up to a mirror image, which changes no distance: a perfect score can be reached.",
        cite="After PCQM-Contact: Dwivedi et al., Long Range Graph Benchmark (arXiv 2206.08164).",
    ),
    "nbody": KindText(
        title="Charged particles",
        what="Particles with charges of ±1 that attract and repel each other in free space: positions and velocities at one "
        "time, and positions some steps of the simulation later.",
        reached="The simulation is deterministic, so that the error can fall to that of rounding; chaotic encounters make it "
        "hard.",
        cite="Satorras, Hoogeboom, Welling: E(n) Equivariant Graph Neural Networks. ICML 2021 (arXiv 2102.09844), after Kipf"
        " et al. (arXiv 1802.04687); these are new simulations by the same rule.",
    ),
    "clusters": KindText(
        title="Random clusters of atoms",
        what="Atoms of random types at random places, and an energy of their types and distances alone: the sum over pairs "
        "of (1 + t_i)(1 + t_j) exp(-r_ij) / 10. No molecules, but a target that is invariant in the same way.",
        reached="The target is a function of the row, so that the error can fall to that of rounding.",
    ),
    "shapes": KindText(
        title="Clouds of simple shapes",
        what="Points that are uniform on the surface of a simple body, centred, scaled to radius 1 and turned at random "
        "unless `rotate` is false; the class is the shape.",
        reached="With enough points the shapes are told apart in every pose, so 100 % can be reached.",
    ),
    "qm9": KindText(
        title="Molecules of QM9",
        what="A molecule with the coordinates of its atoms in Å (categories of atoms: H, C, N, O, F) and properties that "
        "were computed for it.",
        cite="Ramakrishnan, Dral, Rupp, von Lilienfeld: Quantum chemistry structures and properties of 134 kilo molecules. "
        "Scientific Data 1, 2014.",
        license=UNKNOWN_LICENSE,
    ),
    "geometric-shapes": KindText(
        title="Clouds of meshes",
        what="Points that are uniform on the surface of a mesh, centred and scaled to radius 1.",
        license=UNKNOWN_LICENSE,
    ),
    "digits": KindText(
        title="Handwritten digits",
        what="A digit of 8 × 8 pixels as it comes with scikit-learn, each pixel enlarged to a square.",
        cite="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998.",
        license="cc-by-4.0",
    ),
    "cifar10": KindText(
        title="CIFAR-10",
        what="A colour picture of 32 × 32 pixels, as the file has it.",
        cite="Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009.",
        license=UNKNOWN_LICENSE,
    ),
}
