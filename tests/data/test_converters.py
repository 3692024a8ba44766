"""Raw files as rows: molecules, meshes, images; on small files written here."""

import io
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lps_hf.data import cifar10_rows, digit_rows, mesh_clouds, qm9_rows
from lps_hf.data.converters import read_off, sample_surface

# A square of area 4 in two triangles and one of area 2 beside it, in the plane z = 1.
SQUARE = """OFF
# a comment
5 2 0
0 0 1
2 0 1
2 2 1
0 2 1  # the last corner
4 0 1

4 0 1 2 3
3 1 4 2 255 0 0
"""


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "molecules.npz"
    arrays = {
        "z": np.array([8, 1, 1, 9, 6], dtype=np.uint8),
        "pos": np.arange(15, dtype=np.float32).reshape(5, 3),
        "n_atoms": np.array([3, 2], dtype=np.uint8),
        "targets": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "target_names": np.array(["mu", "gap", "R2"]),
    }
    np.savez(path, **arrays)
    return path, arrays


def test_molecules_are_cut_at_their_sizes(molecules):
    path, _ = molecules
    assert qm9_rows(path, "gap") == [
        {"positions": [[0, 1, 2], [3, 4, 5], [6, 7, 8]], "node_feat": [[3], [0], [0]], "y": [2]},
        {"positions": [[9, 10, 11], [12, 13, 14]], "node_feat": [[4], [1]], "y": [5]},
    ]
    assert [row["y"] for row in qm9_rows(path, ["R2", "mu"])] == [[3, 1], [6, 4]]


def test_unknown_targets_and_elements_are_refused(molecules):
    path, arrays = molecules
    with pytest.raises(ValueError, match="names out of mu, gap, R2, got 'homo'"):
        qm9_rows(path, ["mu", "homo"])
    np.savez(path, **{**arrays, "z": np.array([8, 1, 1, 17, 6])})
    with pytest.raises(ValueError, match=r"got \[17\] too"):
        qm9_rows(path, "mu")


def test_meshes_of_any_polygons_become_triangles():
    vertices, triangles = read_off(SQUARE)
    assert vertices.tolist() == [[0, 0, 1], [2, 0, 1], [2, 2, 1], [0, 2, 1], [4, 0, 1]]
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3], [1, 4, 2]]
    glued = SQUARE.replace("OFF\n# a comment\n", "OFF")
    for place, expected in enumerate(read_off(glued)):
        np.testing.assert_array_equal((vertices, triangles)[place], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [("ply\n1 0 0", "must begin with 'OFF'"), ("", "must begin with 'OFF'"), (SQUARE[:60], "Is it cut off")],
)
def test_what_is_no_mesh_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_off(text)


def test_points_are_uniform_on_a_mesh():
    points = sample_surface(*read_off(SQUARE), 20000, np.random.default_rng(0))
    x, y, z = points.T
    np.testing.assert_allclose(z, 1)
    assert (x + y).max() <= 4 + 1e-9
    assert points[:, :2].min() >= 0
    # Shares of the area of 6: the square has 4, and its left half 2; below y = 1 there are 3.5.
    assert (x < 2).mean() == pytest.approx(4 / 6, abs=0.015)
    assert (x < 1).mean() == pytest.approx(2 / 6, abs=0.015)
    assert (y < 1).mean() == pytest.approx(3.5 / 6, abs=0.015)
    # In one triangle alone: of the triangle's four quarters by the middles of its sides each has one fourth of the points.
    corner = sample_surface(np.eye(3), np.array([[0, 1, 2]]), 20000, np.random.default_rng(1))
    assert [(corner[:, axis] > 0.5).mean() for axis in range(3)] == pytest.approx([0.25] * 3, abs=0.015)


def test_a_mesh_without_area_is_refused():
    with pytest.raises(ValueError, match="positive area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 4, np.random.default_rng(0))


@pytest.fixture
def meshes(tmp_path):
    with zipfile.ZipFile(tmp_path / "meshes.zip", "w") as archive:
        for name in ("square/train/b", "square/train/a", "arrow/train/a", "arrow/test/a", "zebra/test/a"):
            archive.writestr(f"raw/{name}.off", SQUARE)
        archive.writestr("raw/readme.txt", "no mesh")
    return tmp_path / "meshes.zip"


def test_clouds_of_meshes_are_labelled_by_their_folder(meshes):
    rows, classes = mesh_clouds(meshes, "train", num_points=16, clouds_per_mesh=2, seed=3)
    assert classes == ["arrow", "square", "zebra"]
    assert [row["y"] for row in rows] == [[0], [0], [1], [1], [1], [1]]
    clouds = np.array([row["positions"] for row in rows])
    assert clouds.shape == (6, 16, 3)
    np.testing.assert_allclose(clouds.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(clouds, axis=2).max(axis=1), 1)
    assert len(np.unique(clouds[:, 0, 0])) == 6
    assert mesh_clouds(meshes, "train", num_points=16, clouds_per_mesh=2, seed=3)[0] == rows
    assert [row["y"] for row in mesh_clouds(meshes, "test", num_points=4)[0]] == [[0], [2]]


def test_a_split_without_meshes_is_refused(meshes):
    with pytest.raises(ValueError, match="`split` must be a folder of meshes"):
        mesh_clouds(meshes, "validation")


def test_images_are_decoded_behind_their_common_header(tmp_path):
    image = pytest.importorskip("PIL.Image")
    colors = [(250, 10, 10), (10, 10, 250), (10, 250, 10)]
    files = []
    for color in colors:
        buffer = io.BytesIO()
        image.new("RGB", (32, 32), color).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    header = files[0][:100]
    assert all(file.startswith(header) for file in files)
    bodies = [file[100:] for file in files]
    np.savez(
        tmp_path / "images.npz",
        header=np.frombuffer(header, dtype=np.uint8),
        data=np.frombuffer(b"".join(bodies), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, bodies)]),
        label=np.array([6, 0, 9], dtype=np.uint8),
    )
    rows = list(cifar10_rows(tmp_path / "images.npz"))
    assert [row["label"] for row in rows] == [6, 0, 9]
    for row, color in zip(rows, colors, strict=True):
        assert row["image"].shape == (32, 32, 3)
        assert row["image"].dtype == np.uint8
        assert np.abs(row["image"].astype(int) - color).max() < 10


def test_digits_are_grey_images_of_whole_pixels():
    rows, small = digit_rows(scale=3, seed=1), digit_rows(seed=1)
    assert len(rows) == 1797
    digits = load_digits()
    originals = {image.tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    for row, original in zip(rows[:50], small, strict=False):
        assert row["image"].shape == (24, 24, 3)
        assert row["image"].dtype == np.uint8
        np.testing.assert_array_equal(row["image"][::3, ::3], original["image"])
        np.testing.assert_array_equal(row["image"][2::3, 1::3], original["image"])
        grey = original["image"][..., 0]
        assert (original["image"] == grey[..., None]).all()
        assert originals[np.round(grey * (16 / 255)).astype(float).tobytes()] == row["label"] == original["label"]
    assert max(row["image"].max() for row in small) == 255
    assert [row["label"] for row in digit_rows(seed=2)[:50]] != [row["label"] for row in rows[:50]]
    with pytest.raises(ValueError, match="scale"):
        digit_rows(0)
