"""Raw data sets as rows: molecules of QM9, meshes as point clouds, CIFAR-10 and handwritten digits as images.

Paths are arguments; the file formats are described with each function. Write the rows with `datasets.Dataset.from_list`.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lps_hf.models.row_structures import read_off

from .generators import check_count
from .geometric_rows import normalize_cloud

# Atomic numbers of QM9's elements, in the order of their categories: H, C, N, O, F.
QM9_ELEMENTS = (1, 6, 7, 8, 9)


def qm9_rows(path: str | Path, targets: str | Sequence[str]) -> list[dict[str, Any]]:
    """Molecules with coordinates from one `.npz` file.

    The file has `z` (atomic numbers of all molecules, one after the other), `pos` (positions of the same atoms, Å), `n_atoms`
    (per molecule), `targets` (molecules, targets) and `target_names`; QM9 itself is Ramakrishnan et al., Sci. Data 1 (2014).

    Args:
        path: The file.
        targets: Name or names out of `target_names`; the unit is that in the file.

    Returns:
        `list[dict]`: rows with `positions` (Å), `node_feat` (a category per atom: H, C, N, O, F) and `y` (a float per target).

    Raises:
        ValueError: If a target is not in the file, or an element is none of the five.
    """
    with np.load(path, allow_pickle=False) as file:
        numbers, positions, counts = file["z"], file["pos"], file["n_atoms"]
        names, values = file["target_names"].tolist(), file["targets"]
    wanted = [targets] if isinstance(targets, str) else list(targets)
    for name in wanted:
        if name not in names:
            raise ValueError(f"`targets` must be names out of {', '.join(names)}, got {name!r}. Correct the name.")
    unknown = sorted(set(np.unique(numbers).tolist()) - set(QM9_ELEMENTS))
    if unknown:
        raise ValueError(f"`path` must hold the elements {QM9_ELEMENTS}, got {unknown} too. Leave these molecules out.")
    categories = np.searchsorted(QM9_ELEMENTS, numbers)
    values = values[:, [names.index(name) for name in wanted]]
    ends = np.cumsum(counts, dtype=np.int64)
    return [
        {
            "positions": positions[end - count : end].tolist(),
            "node_feat": categories[end - count : end, None].tolist(),
            "y": row.tolist(),
        }
        for count, end, row in zip(counts.astype(int), ends, values, strict=True)
    ]


def mesh_clouds(
    path: str | Path, split: str, num_points: int = 128, clouds_per_mesh: int = 1, seed: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """Point clouds from a zip file of meshes, `…/<class>/<split>/<name>.off`, as GeometricShapes and ModelNet have them.

    Args:
        path: The zip file.
        split: Name of the folder, such as `"train"`.
        num_points: Points of each cloud, uniform on the surface.
        clouds_per_mesh: Clouds drawn from each mesh. GeometricShapes has one mesh per class, the same in both splits: take
            another seed for the other split.
        seed: Seed of the points.

    Returns:
        `tuple[list[dict], list[str]]`: Rows with `positions`, centred and scaled by `normalize_cloud`, and `y`, mesh by mesh; and
        the names of the classes, sorted.

    Raises:
        ValueError: If there is no mesh of this split, or a file is no mesh.
    """
    check_count("num_points", num_points, 2)
    check_count("clouds_per_mesh", clouds_per_mesh, 1)
    rng = np.random.default_rng(seed)
    rows = []
    with zipfile.ZipFile(path) as archive:
        places = [PurePosixPath(name) for name in archive.namelist() if name.endswith(".off")]
        places = sorted(place for place in places if len(place.parts) >= 3)
        classes = sorted({place.parts[-3] for place in places})
        places = [place for place in places if place.parts[-2] == split]
        if not places:
            raise ValueError(f"`split` must be a folder of meshes in {path}, got {split!r}, which has none. Try 'train'.")
        for place in places:
            vertices, triangles = read_off(archive.read(str(place)).decode())
            for _ in range(clouds_per_mesh):
                points = sample_surface(vertices, triangles, num_points, rng)
                rows.append({"positions": normalize_cloud(points).tolist(), "y": [classes.index(place.parts[-3])]})
    return rows, classes


def sample_surface(vertices: np.ndarray, triangles: np.ndarray, num_points: int, rng: np.random.Generator) -> np.ndarray:
    """Draw points uniformly on a mesh.

    Args:
        vertices (`np.ndarray` of shape `(vertices, 3)`): Places of the vertices.
        triangles (`np.ndarray` of shape `(triangles, 3)` int): Their corners.
        num_points: Number of points.
        rng: Random source.

    Returns:
        `np.ndarray` of shape `(num_points, 3)`.

    Raises:
        ValueError: If the mesh has no area.
    """
    origin, first, second = (vertices[triangles[:, corner]] for corner in range(3))
    areas = np.linalg.norm(np.cross(first - origin, second - origin), axis=1)
    if not areas.sum() > 0:
        raise ValueError(f"`triangles` must have a positive area, got {len(triangles)} triangles without. Leave this mesh out.")
    chosen = rng.choice(len(triangles), size=num_points, p=areas / areas.sum())
    u, v = rng.uniform(size=(2, num_points, 1))
    # Reflect the far half of the parallelogram back into the triangle.
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return origin[chosen] + u * (first - origin)[chosen] + v * (second - origin)[chosen]


def cifar10_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """Images of CIFAR-10 from one `.npz` file of JPEG images that share their header; needs Pillow.

    The file has `header` (bytes), `data` (bytes of all images without it), `offsets` (where each begins, and the end) and
    `label`; CIFAR-10 itself is Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).

    Args:
        path: The file.

    Yields:
        `dict`: `image` (`np.ndarray` of shape `(32, 32, 3)` uint8) and `label`.
    """
    from PIL import Image

    with np.load(path, allow_pickle=False) as file:
        header, data, offsets, labels = (file[name] for name in ("header", "data", "offsets", "label"))
    for start, end, label in zip(offsets[:-1], offsets[1:], labels, strict=True):
        with Image.open(io.BytesIO(header.tobytes() + data[start:end].tobytes())) as image:
            yield {"image": np.asarray(image.convert("RGB")), "label": int(label)}


def digit_rows(scale: int = 1, seed: int = 0) -> list[dict[str, Any]]:
    """The 1797 handwritten digits that come with scikit-learn (8 × 8 pixels, UCI), in a seeded order.

    Args:
        scale: Each pixel becomes a square of this many pixels.
        seed: Seed of the order, so that a slice is a fair sample of writers and digits.

    Returns:
        `list[dict]`: rows with `image` (`np.ndarray` of shape `(8 * scale, 8 * scale, 3)` uint8, grey) and `label`.

    Raises:
        ValueError: If `scale` is less than 1.
    """
    from sklearn.datasets import load_digits

    check_count("scale", scale, 1)
    digits = load_digits()
    # Sixteen grey levels and zero, to 0 ... 255.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)[..., None].repeat(3, axis=3)
    order = np.random.default_rng(seed).permutation(len(images))
    return [{"image": images[number], "label": int(digits.target[number])} for number in order]
