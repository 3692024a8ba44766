"""Generators of rows with coordinates: charged particles, point clouds of simple shapes, clusters of atoms.

The rows depend on `seed` alone: a larger number of rows continues the same sequence. Take another seed for another split.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .generators import check_count, check_range

# Largest force on a coordinate, times the step: close encounters are cut off so that the integrator stays stable.
_MAX_KICK = 0.1


def charged_particles(
    num_rows: int,
    num_particles: int = 5,
    first_step: int = 3000,
    num_steps: int = 1000,
    step: float = 1e-3,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Charged particles in free space, and where they are some steps later.

    The simulation of Kipf et al., "Neural Relational Inference" (ICML 2018) in three dimensions and without a box, as in
    Satorras et al. (arXiv 2102.09844): charges ±1, positions from Normal(0, 1), velocities of length 0.5 in random directions,
    masses 1, force q_i q_j (x_i - x_j) / |x_i - x_j|³ (equal charges repel) whose sum over j is cut off at ±0.1 / `step` in each
    coordinate. By default positions and velocities are those of step 3000 and targets those of step 4000 (frames 30 and 40 of
    the benchmark). In its convention the velocity stored with a position is that before the kick of the force there.

    Args:
        num_rows: Number of simulations.
        num_particles: Particles in each.
        first_step: Steps before the row is taken.
        num_steps: Steps from there to the targets.
        step: Length of a step in time units.
        seed: Seed of charges, positions and velocities.

    Returns:
        `list[dict]`: rows with `positions`, `velocities`, `target_positions` (`num_particles` lists of three floats) and
        `charges` (`num_particles` floats).

    Raises:
        ValueError: If a number is out of range.
    """
    check_count("num_rows", num_rows, 1)
    check_count("num_particles", num_particles, 1)
    check_count("first_step", first_step, 0)
    check_count("num_steps", num_steps, 0)
    if not step > 0:
        raise ValueError(f"`step` must be positive, got {step!r}. Pass a length of time such as 0.001.")
    # A stream for each field, so that a larger number of rows continues the sequence.
    place_rng, velocity_rng, charge_rng = np.random.default_rng(seed).spawn(3)
    shape = (num_rows, num_particles, 3)
    start = place_rng.standard_normal(shape)
    velocities = velocity_rng.standard_normal(shape)
    velocities *= 0.5 / np.linalg.norm(velocities, axis=-1, keepdims=True)
    charges = charge_rng.choice([-1.0, 1.0], size=shape[:2])
    positions, velocities = simulate_charges(start, velocities, charges, first_step, step)
    targets, _ = simulate_charges(positions, velocities, charges, num_steps, step)
    columns = {"positions": positions, "velocities": velocities, "charges": charges, "target_positions": targets}
    return [{name: column[number].tolist() for name, column in columns.items()} for number in range(num_rows)]


def simulate_charges(
    positions: np.ndarray, velocities: np.ndarray, charges: np.ndarray, num_steps: int, step: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Follow charged particles for some steps of the leapfrog scheme: kick by the force, then drift.

    Args:
        positions (`np.ndarray` of shape `(rows, particles, d)`): Positions x.
        velocities (`np.ndarray` of the same shape): Velocities half a step earlier, as `charged_particles` stores them.
        charges (`np.ndarray` of shape `(rows, particles)`): Charges q.
        num_steps: Number of steps.
        step: Length of a step.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Positions and velocities after the steps, float64.
    """
    positions, velocities = positions.astype(np.float64), velocities.astype(np.float64)
    products = charges[:, :, None] * charges[:, None, :]
    diagonal = np.eye(charges.shape[1])
    for _ in range(num_steps):
        offsets = positions[:, :, None] - positions[:, None, :]
        # One on the diagonal: the force of a particle on itself is zero times one, not zero by zero.
        squares = np.square(offsets).sum(axis=-1) + diagonal
        forces = ((products / squares**1.5)[..., None] * offsets).sum(axis=2)
        velocities = velocities + step * np.clip(forces, -_MAX_KICK / step, _MAX_KICK / step)
        positions = positions + step * velocities
    return positions, velocities


def shape_clouds(
    num_clouds: int,
    num_points: int = 64,
    shapes: Sequence[str] = ("sphere", "cube", "torus", "cylinder"),
    rotate: bool = True,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Points on the surface of simple shapes; the class is the shape.

    Args:
        num_clouds: Number of rows; row `i` has class `i % len(shapes)`.
        num_points: Points of each cloud, uniform on the surface.
        shapes: Names of `SHAPES`, one per class.
        rotate: Turn every cloud by a random rotation; `False` leaves the shapes upright.
        seed: Seed of points and rotations.

    Returns:
        `list[dict]`: rows with `positions`, centred and scaled by `normalize_cloud`, and `y`.

    Raises:
        ValueError: If a number is out of range, or there is no such shape.
    """
    check_count("num_clouds", num_clouds, 1)
    check_count("num_points", num_points, 2)
    unknown = [name for name in shapes if name not in SHAPES]
    if unknown or not shapes:
        raise ValueError(f"`shapes` must be names out of {', '.join(SHAPES)}, got {list(shapes)}. Remove {unknown or 'nothing'}.")
    point_rng, rotation_rng = np.random.default_rng(seed).spawn(2)
    rows = []
    for number in range(num_clouds):
        points = SHAPES[shapes[number % len(shapes)]](num_points, point_rng)
        if rotate:
            points = points @ random_rotation(rotation_rng).T
        rows.append({"positions": normalize_cloud(points).tolist(), "y": [number % len(shapes)]})
    return rows


def normalize_cloud(points: np.ndarray) -> np.ndarray:
    """Move the mean of points `(points, d)` to the origin and scale the farthest one to distance 1; a single place stays so."""
    points = points - points.mean(axis=0)
    radius = np.linalg.norm(points, axis=1).max()
    return points / radius if radius > 0 else points


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation `(3, 3)`, uniform over SO(3): the turn of a uniform unit quaternion (Shoemake 1992)."""
    quaternion = rng.standard_normal(4)
    a, b, c, d = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]
    )


def atom_clusters(
    num_molecules: int, num_atoms: tuple[int, int] = (3, 8), num_types: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Random clusters of atoms, and an energy that depends on their types and distances alone; for tests and examples.

    Atoms are uniform in a cube with an edge of 2 · ∛n and no closer than 0.8 to each other. The target is the sum over pairs of
    (1 + t_i)(1 + t_j) exp(-r_ij) / 10, a screened repulsion of types t and distances r: invariant under E(3) and S_n.

    Args:
        num_molecules: Number of rows.
        num_atoms: Least and largest number of atoms n, both inclusive, uniform.
        num_types: Number of atom types.
        seed: Seed of the clusters.

    Returns:
        `list[dict]`: rows with `positions`, `node_feat` (`n` lists of one type) and `y` (a list of one float).

    Raises:
        ValueError: If a number is out of range.
    """
    check_count("num_molecules", num_molecules, 1)
    check_count("num_types", num_types, 1)
    check_range("num_atoms", num_atoms, 1)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_molecules):
        count = int(rng.integers(*num_atoms, endpoint=True))
        positions = np.zeros((0, 3))
        while len(positions) < count:
            place = rng.uniform(0, 2 * np.cbrt(count), size=3)
            if len(positions) == 0 or np.linalg.norm(positions - place, axis=1).min() >= 0.8:
                positions = np.concatenate([positions, [place]])
        types = rng.integers(num_types, size=count)
        distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
        pairs = np.triu(np.outer(1 + types, 1 + types) * np.exp(-distances) / 10, k=1)
        rows.append({"positions": positions.tolist(), "node_feat": types[:, None].tolist(), "y": [float(pairs.sum())]})
    return rows


def _sphere(num_points: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.standard_normal((num_points, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _cube(num_points: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-1, 1, size=(num_points, 3))
    face = rng.integers(6, size=num_points)
    points[np.arange(num_points), face % 3] = np.where(face < 3, -1, 1)
    return points


def _torus(num_points: int, rng: np.random.Generator, tube: float = 0.4) -> np.ndarray:
    """Ring of radius 1; the surface has more room on its outer side, so angles on the inner side are rejected more often."""
    angles = np.zeros(0)
    while len(angles) < num_points:
        candidates = rng.uniform(0, 2 * np.pi, size=num_points)
        kept = rng.uniform(0, 1 + tube, size=num_points) < 1 + tube * np.cos(candidates)
        angles = np.concatenate([angles, candidates[kept]])
    angles = angles[:num_points]
    ring = rng.uniform(0, 2 * np.pi, size=num_points)
    radius = 1 + tube * np.cos(angles)
    return np.stack([radius * np.cos(ring), radius * np.sin(ring), tube * np.sin(angles)], axis=1)


def _cylinder(num_points: int, rng: np.random.Generator) -> np.ndarray:
    """Radius 1 and height 2: the side has two thirds of the surface, each lid one sixth."""
    part = rng.choice(3, size=num_points, p=[2 / 3, 1 / 6, 1 / 6])
    turn = rng.uniform(0, 2 * np.pi, size=num_points)
    radius = np.where(part == 0, 1.0, np.sqrt(rng.uniform(size=num_points)))
    height = np.choose(part, [rng.uniform(-1, 1, size=num_points), -np.ones(num_points), np.ones(num_points)])
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


SHAPES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "sphere": _sphere,
    "cube": _cube,
    "torus": _torus,
    "cylinder": _cylinder,
}
