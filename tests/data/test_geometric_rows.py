"""Charged particles, shapes and clusters of atoms: the physics, the surfaces, the invariances, seeds."""

from pathlib import Path

import numpy as np
import pytest

from lps_hf.data import atom_clusters, charged_particles, shape_clouds
from lps_hf.data.geometric_rows import SHAPES, normalize_cloud, random_rotation, simulate_charges

FRAMES = Path(__file__).resolve().parents[3] / "shared" / "data" / "nbody" / "nbody_charged5_small_frames20_30_40.npz"


@pytest.mark.parametrize(
    "generate",
    [
        lambda count, seed: charged_particles(count, 3, first_step=2, num_steps=2, seed=seed),
        lambda count, seed: shape_clouds(count, 8, seed=seed),
        lambda count, seed: atom_clusters(count, seed=seed),
    ],
)
def test_seed_decides_and_a_longer_run_continues_the_shorter(generate):
    rows = generate(6, 5)
    assert generate(3, 5) == rows[:3]
    assert generate(3, 6) != rows[:3]


# ------------------------------------------------------------------------------------------------------ charged particles


def test_particle_rows_are_two_moments_of_one_motion():
    rows = charged_particles(40, num_particles=4, first_step=0, num_steps=30, seed=1)
    positions, velocities, charges, targets = (
        np.array([row[key] for row in rows]) for key in ("positions", "velocities", "charges", "target_positions")
    )
    assert positions.shape == velocities.shape == targets.shape == (40, 4, 3)
    assert charges.shape == (40, 4)
    np.testing.assert_allclose(np.linalg.norm(velocities, axis=-1), 0.5)
    assert set(np.unique(charges)) == {-1, 1}
    assert abs(charges.mean()) < 4 / np.sqrt(160)
    assert positions.std() == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(simulate_charges(positions, velocities, charges, 30)[0], targets)
    later = charged_particles(40, num_particles=4, first_step=10, num_steps=20, seed=1)
    np.testing.assert_allclose([row["target_positions"] for row in later], targets)


def test_equal_charges_repel_and_others_attract_as_coulomb_says():
    positions = np.array([[[0.0, 0, 0], [2.0, 0, 0]]])
    for product in (1, -1):
        charges = np.array([[1.0, product]])
        moved, velocities = simulate_charges(positions, np.zeros((1, 2, 3)), charges, 1, step=0.01)
        # Force 1 / 2² away from or towards each other.
        np.testing.assert_allclose(velocities[0, :, 0], [-0.0025 * product, 0.0025 * product])
        np.testing.assert_allclose(moved - positions, 0.01 * velocities, atol=1e-15)


def test_the_force_of_a_close_encounter_is_cut_off():
    positions = np.array([[[0.0, 0, 0], [1e-6, 0, 0]]])
    _, velocities = simulate_charges(positions, np.zeros((1, 2, 3)), np.ones((1, 2)), 1)
    np.testing.assert_allclose(velocities[0, :, 0], [-0.1, 0.1])


def test_energy_and_momentum_are_kept():
    # Far from each other, so that nothing is cut off.
    positions = 3 * np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    charges = np.array([[1.0, -1, 1, 1]])
    velocities = 0.3 * np.random.default_rng(0).standard_normal((1, 4, 3))

    def energy(positions, velocities):
        distances = np.linalg.norm(positions[0, :, None] - positions[0], axis=-1) + np.eye(4)
        pairs = np.triu(charges.T @ charges / distances, k=1)
        return 0.5 * np.square(velocities).sum() + pairs.sum()

    later = simulate_charges(positions, velocities, charges, 2000)
    assert np.abs(later[0] - positions).max() > 0.3
    np.testing.assert_allclose(later[1].sum(axis=1), velocities.sum(axis=1), atol=1e-10)
    # Velocities are half a step early, so the energy is kept to the first order of the step.
    assert energy(*later) == pytest.approx(energy(positions, velocities), abs=1e-3)


def test_turned_and_moved_particles_move_alike():
    rng = np.random.default_rng(1)
    positions, velocities = rng.standard_normal((2, 3, 5, 3))
    charges = rng.choice([-1.0, 1.0], size=(3, 5))
    # Gentle charges: the cut-off of the force looks at coordinates and so is not invariant.
    rotation, shift = random_rotation(rng), np.array([1.0, 2.0, 3.0])
    here, _ = simulate_charges(positions, velocities, 0.3 * charges, 100)
    there, _ = simulate_charges(positions @ rotation.T + shift, velocities @ rotation.T, 0.3 * charges, 100)
    np.testing.assert_allclose(there, here @ rotation.T + shift, atol=1e-9)


def test_the_published_simulations_are_followed():
    if not FRAMES.is_file():
        pytest.skip("needs the n-body frames beside the project")
    with np.load(FRAMES) as file:
        positions, velocities = (file[f"test_{key}"][:100, 1:].astype(float) for key in ("loc", "vel"))
        charges = file["test_charges"][:100].astype(float)
    ends = simulate_charges(positions[:, 0], velocities[:, 0], charges, 1000)
    for end, expected in zip(ends, (positions[:, 1], velocities[:, 1]), strict=True):
        errors = np.abs(end - expected).max(axis=(1, 2))
        # The frames are float32, and a close encounter multiplies their rounding.
        assert np.median(errors) < 1e-6
        assert np.quantile(errors, 0.9) < 1e-3


# ---------------------------------------------------------------------------------------------------------- shapes, atoms


def on_surface(name, points):
    x, y, z = points.T
    ring = np.hypot(x, y)
    if name == "sphere":
        return np.linalg.norm(points, axis=1) - 1
    if name == "cube":
        return np.abs(points).max(axis=1) - 1
    if name == "torus":
        return np.hypot(ring - 1, z) - 0.4
    return np.maximum(ring, np.abs(z)) - 1


@pytest.mark.parametrize("name", SHAPES)
def test_points_are_on_the_surface_and_uniform(name):
    points = SHAPES[name](20000, np.random.default_rng(0))
    np.testing.assert_allclose(on_surface(name, points), 0, atol=1e-12)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.03)
    # The part of the surface where |z| is less than a half, by integration.
    expected = {"sphere": 1 / 2, "cube": 4 / 6 / 2, "torus": 1, "cylinder": 2 / 3 / 2}[name]
    assert (np.abs(points[:, 2]) < 0.5).mean() == pytest.approx(expected, abs=0.02)
    if name == "torus":
        # The outer half of the tube: (π + 2 · 0.4) / 2π.
        assert (np.hypot(points[:, 0], points[:, 1]) > 1).mean() == pytest.approx(0.5 + 0.4 / np.pi, abs=0.02)
    if name == "cylinder":
        lid = points[np.abs(points[:, 2]) == 1]
        assert (np.hypot(lid[:, 0], lid[:, 1]) < np.sqrt(0.5)).mean() == pytest.approx(0.5, abs=0.03)


def test_clouds_take_turns_and_are_normalized():
    rows = shape_clouds(6, 32, ("cube", "sphere", "torus"), seed=2)
    assert [row["y"] for row in rows] == [[0], [1], [2], [0], [1], [2]]
    for row in rows:
        points = np.array(row["positions"])
        assert points.shape == (32, 3)
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)


def test_rotation_of_clouds_can_be_left_out():
    upright, turned = (
        np.array([row["positions"] for row in shape_clouds(20, 64, ("cube",), rotate=rotate, seed=3)]) for rotate in (False, True)
    )
    # An upright cube has many points in one plane of a coordinate; the same cube, turned, has the same distances.
    faces = [(np.abs(cloud - cloud.max(axis=0)) < 1e-9).sum() for cloud in upright]
    assert min(faces) > 10
    assert max((np.abs(cloud - cloud.max(axis=0)) < 1e-9).sum() for cloud in turned) == 3
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(upright, axis=-1))


def test_one_place_stays_where_it_is():
    np.testing.assert_array_equal(normalize_cloud(np.ones((3, 3))), np.zeros((3, 3)))


def test_rotations_are_uniform_rotations():
    rng = np.random.default_rng(0)
    rotations = np.stack([random_rotation(rng) for _ in range(4000)])
    np.testing.assert_allclose(rotations @ rotations.mT, np.broadcast_to(np.eye(3), (4000, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    # Moments of the Haar measure: entries have mean 0 and mean square 1/3, the trace has mean square 1.
    np.testing.assert_allclose(rotations.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(np.square(rotations).mean(axis=0), 1 / 3, atol=0.02)
    assert np.square(np.trace(rotations, axis1=1, axis2=2)).mean() == pytest.approx(1, abs=0.1)


def test_the_energy_of_a_cluster_is_a_sum_over_its_pairs():
    rows = atom_clusters(30, (1, 6), num_types=3, seed=4)
    assert {len(row["positions"]) for row in rows} == set(range(1, 7))
    assert {atom[0] for row in rows for atom in row["node_feat"]} == {0, 1, 2}
    for row in rows:
        energy, places = 0.0, [np.array(place) for place in row["positions"]]
        for i in range(len(places)):
            for j in range(i):
                distance = np.sqrt(((places[i] - places[j]) ** 2).sum())
                assert distance >= 0.8
                energy += (1 + row["node_feat"][i][0]) * (1 + row["node_feat"][j][0]) * np.exp(-distance) / 10
        assert row["y"] == pytest.approx([energy])


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: charged_particles(0), "num_rows"),
        (lambda: charged_particles(1, step=0.0), "step"),
        (lambda: charged_particles(1, num_steps=-1), "num_steps"),
        (lambda: shape_clouds(1, num_points=1), "num_points"),
        (lambda: shape_clouds(1, shapes=("sphere", "teapot")), "teapot"),
        (lambda: shape_clouds(1, shapes=()), "shapes"),
        (lambda: atom_clusters(1, num_atoms=(4, 3)), r"num_atoms\[1\]"),
        (lambda: atom_clusters(1, num_types=0), "num_types"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=argument):
        call()
