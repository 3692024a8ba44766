"""Rows of images: the backbone's own image processor, or numbers from 0 to 1."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as Picture
from transformers import AutoImageProcessor, AutoProcessor, ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lps_hf.data import to_rows
from lps_hf.models import row_images
from lps_hf.models.configuration_lps import LPSConfig
from lps_hf.models.modeling_heads_lps import LPSForImageClassification
from lps_hf.models.processing_lps import LPSProcessor
from tests.tiny import tiny_config, tiny_vit

SINGLE = "single_label_classification"


def pixels(seed=0, size=(10, 12), channels=3):
    return np.random.default_rng(seed).integers(0, 256, size=(*size, channels), dtype=np.uint8)


def images(**options):
    return LPSProcessor(**{"inputs": {"pixel_values": "3 h w"}, "num_labels": 4, **options})


def vit_processor():
    return ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])


def refusal(kind, processor, rows):
    with pytest.raises(kind) as caught:
        processor(rows)
    assert type(caught.value) is kind
    return str(caught.value)


def test_without_an_image_processor_pixels_are_divided_by_255_and_nothing_else():
    batch = images()([{"image": pixels(0), "label": 3}, {"image": Picture.fromarray(pixels(1)), "label": 0}])
    assert {key: (array.shape, array.dtype.name) for key, array in batch.items()} == {
        "pixel_values": ((2, 3, 10, 12), "float32"),
        "labels": ((2,), "int64"),
    }
    for seed in (0, 1):
        np.testing.assert_array_equal(batch["pixel_values"][seed], pixels(seed).transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(batch["labels"], [3, 0])
    assert images().model_input_names == ["pixel_values"]


def test_the_image_processor_of_the_backbone_is_used_for_images_of_all_sizes():
    pictures = [pixels(0), pixels(1, size=(40, 20))]
    batch = images(image_processor=vit_processor())([{"image": picture} for picture in pictures], return_tensors="pt")
    expected = vit_processor()(images=pictures, return_tensors="pt")["pixel_values"]
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert torch.equal(batch["pixel_values"], expected)


def test_an_image_three_pixels_high_is_not_taken_for_one_with_its_channels_first():
    batch = images(image_processor=vit_processor())([{"image": pixels(size=(3, 5))}])
    expected = vit_processor()(images=[pixels(size=(3, 5))], input_data_format="channels_last")["pixel_values"][0]
    np.testing.assert_array_equal(batch["pixel_values"][0], expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_are_converted_to_the_channels_of_the_model(mode):
    picture = Picture.fromarray(pixels()).convert(mode)
    for processor in (images(), images(image_processor=vit_processor())):
        expected = processor([{"image": picture.convert("RGB")}])["pixel_values"]
        np.testing.assert_array_equal(processor([{"image": picture}])["pixel_values"], expected)
    grey = images(inputs={"pixel_values": "1 h w"})
    expected = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(grey([{"image": picture}])["pixel_values"][0, 0], expected / np.float32(255))
    np.testing.assert_array_equal(grey([{"image": expected}])["pixel_values"], grey([{"image": picture}])["pixel_values"])


def test_processed_pixel_values_are_taken_as_they_are():
    values = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    batch = images(image_processor=vit_processor())([{"pixel_values": values, "labels": 1}])
    np.testing.assert_array_equal(batch["pixel_values"][0], values)
    np.testing.assert_array_equal(batch["labels"], [1])
    both = images(image_processor=vit_processor())([{"pixel_values": np.zeros((3, 32, 32))}, {"image": pixels()}])
    assert not both["pixel_values"][0].any()
    assert both["pixel_values"][1].any()


def test_rows_columns_and_one_row_make_the_same_batch():
    pictures = [Picture.fromarray(pixels(seed)) for seed in range(3)]
    rows = [{"image": picture, "label": label} for picture, label in zip(pictures, (0, 3, 1), strict=True)]
    expected = images()(rows)
    dataset = Dataset.from_dict({"image": pictures, "label": [0, 3, 1]}).cast_column("image", Image())
    arrays = [pixels(seed) for seed in range(3)]
    columns = [
        dataset[:],
        {"image": pictures, "label": [0, 3, 1]},
        {"image": arrays, "label": [0, 3, 1]},
        {"image": np.stack(arrays), "label": np.array([0, 3, 1])},
        {"image": [array.tolist() for array in arrays], "label": [0, 3, 1]},
        {"pixel_values": expected["pixel_values"], "label": [0, 3, 1]},
    ]
    for given in (dataset, dataset.with_format("numpy"), *columns):
        batch = images()(given)
        np.testing.assert_array_equal(batch["pixel_values"], expected["pixel_values"])
        np.testing.assert_array_equal(batch["labels"], expected["labels"])
    for row in (dataset[1], {"image": arrays[1], "label": 3}, {"image": arrays[1].tolist(), "label": 3}):
        np.testing.assert_array_equal(images()(row)["pixel_values"], expected["pixel_values"][1:2])


def test_labels_are_classes_unless_the_problem_type_says_otherwise():
    row = {"image": pixels()}
    for label, expected in ((2, 2), (None, -100), ([1], 1)):
        batch = images()([{**row, "label": label}, {**row, "labels": 0}] if label is not None else [{**row, "label": [None]}])
        assert batch["labels"].dtype == np.int64
        assert batch["labels"][0] == expected
    several = images(problem_type="multi_label_classification")([{**row, "label": [1, 0, None, 1]}])
    np.testing.assert_array_equal(several["labels"], np.float32([[1, 0, np.nan, 1]]))
    # One label is a class too, where for a graph it would be a number.
    assert images(num_labels=1)([{**row, "label": 0}])["labels"].dtype == np.int64
    assert "labels" not in images()([row])
    message = refusal(ValueError, images(), [{**row, "label": 1}, row])
    assert message == "row 1: expected a label 'label' as the other rows have, got none. None stands for one that is not known."
    message = refusal(ValueError, images(), [{**row, "label": 4}])
    assert message == "row 0: label: expected 0 to 3, or -100 for missing, got 4."


def file_of(picture, file_format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


FORMS = {
    "bytes": lambda picture, path: path.read_bytes(),
    "path": lambda picture, path: path,
    "text": lambda picture, path: str(path),
    "stream": lambda picture, path: io.BytesIO(path.read_bytes()),
    "bytes in a dictionary": lambda picture, path: {"bytes": path.read_bytes(), "path": None},
    "path in a dictionary": lambda picture, path: {"bytes": None, "path": str(path)},
    "picture": lambda picture, path: picture,
    "opened": lambda picture, path: Picture.open(path),
    "array": lambda picture, path: np.asarray(picture),
    "array of int64": lambda picture, path: np.asarray(picture).astype(np.int64),
    "array, channels first": lambda picture, path: np.asarray(picture).transpose(2, 0, 1),
    "tensor": lambda picture, path: torch.tensor(np.asarray(picture)),
    "tensor, channels first": lambda picture, path: torch.tensor(np.asarray(picture)).permute(2, 0, 1),
    "lists": lambda picture, path: np.asarray(picture).tolist(),
    "to_rows of a path": lambda picture, path: to_rows(path)[0]["image"],
    "to_rows of bytes": lambda picture, path: to_rows(path.read_bytes())[0]["image"],
    "to_rows of a picture": lambda picture, path: to_rows([Picture.open(path)])[0]["image"],
}


@pytest.mark.parametrize("form", FORMS)
def test_one_picture_is_one_tensor_in_every_form(form, tmp_path):
    picture, path = Picture.fromarray(pixels()), tmp_path / "picture.png"
    picture.save(path)
    for processor in (images(), images(image_processor=vit_processor())):
        expected = processor([{"image": pixels()}])["pixel_values"]
        np.testing.assert_array_equal(processor([{"image": FORMS[form](picture, path)}])["pixel_values"], expected)
    columns = images()({"image": [FORMS[form](picture, path)] * 2, "label": [0, 1]})
    assert columns["pixel_values"].shape == (2, 3, 10, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_in_every_form(orientation, tmp_path):
    exif = Picture.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture.png"
    Picture.fromarray(pixels()).save(path, exif=exif)
    upright = pixels() if orientation < 5 else pixels().transpose(1, 0, 2)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    upright = np.flip(upright, flips[orientation]) if orientation in flips else upright
    expected = images()([{"image": upright}])["pixel_values"]
    for image in (path, path.read_bytes(), Picture.open(path), Picture.open(path).convert("RGB"), to_rows(path)[0]["image"]):
        np.testing.assert_array_equal(images()([{"image": image}])["pixel_values"], expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bits_of_grey_are_rounded_to_eight(channels, byte_order, tmp_path):
    grey = pixels(channels=1)[..., 0]
    processor = images(inputs={"pixel_values": f"{channels} h w"})
    expected = processor([{"image": Picture.fromarray(grey)}])["pixel_values"]
    deep = Picture.fromarray((grey.astype(np.uint16) * 257).astype(byte_order))
    assert deep.mode.startswith("I;16")
    deep.save(tmp_path / "deep.tiff")
    deep.save(tmp_path / "deep.png") if byte_order == "<u2" else None
    for image in (deep, *tmp_path.iterdir(), to_rows(tmp_path / "deep.tiff")[0]["image"]):
        np.testing.assert_array_equal(processor([{"image": image}])["pixel_values"], expected)
    between = Picture.fromarray(np.array([[0, 128, 129, 65535]], np.uint16))
    np.testing.assert_array_equal(images()([{"image": between}])["pixel_values"][0, 0] * 255, [[0, 0, 1, 255]])


def test_a_picture_whose_white_is_not_known_is_refused():
    grey = pixels(channels=1)[..., 0]
    for kind, mode in ((np.int32, "I"), (np.float32, "F")):
        picture = Picture.fromarray(grey.astype(kind))
        message = refusal(ValueError, images(), [{"image": pixels()}, {"image": picture}])
        assert message.startswith(f"row 1: image: expected a picture of whole numbers from 0 to 255, got one of mode {mode!r}")
    # Twelve bits in sixteen: what would be left are sixteen levels of grey.
    message = refusal(ValueError, images(), [{"image": Picture.fromarray(grey.astype(np.uint16) * 16)}])
    assert message.startswith("row 0: image: expected a 16-bit picture of 0 to 65535, got at most ")
    assert not images()([{"image": Picture.fromarray(np.zeros((4, 4), np.uint16))}])["pixel_values"].any()


def test_transparent_pictures_stand_on_white():
    color = Picture.fromarray(pixels())
    half = Picture.new("L", color.size, 128)
    faint = pixels() * (128 / 255) + 255 * (127 / 255)
    palette = Picture.fromarray(np.uint8([[0, 1]])).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.info["transparency"] = 0
    keyed = file_of(Picture.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]])), transparency=(1, 2, 3))
    cases = [
        (Picture.merge("RGBA", (*color.split(), half)), faint),
        (Picture.merge("LA", (color.split()[0], half)), np.repeat(faint[..., :1], 3, axis=2)),
        (Picture.merge("RGBA", (*color.split(), Picture.new("L", color.size, 0))), np.full(pixels().shape, 255)),
        (palette, [[[255] * 3, [40, 50, 60]]]),
        (keyed, [[[255] * 3, [4, 5, 6]]]),
    ]
    for picture, expected in cases:
        found = images()([{"image": picture}])["pixel_values"][0].transpose(1, 2, 0) * 255
        np.testing.assert_allclose(found, expected, atol=1)
    clear = Picture.merge("RGBA", (*color.split(), half))
    four = images(inputs={"pixel_values": "4 h w"})([{"image": clear}])["pixel_values"]
    np.testing.assert_allclose(four[0, 3] * 255, 128)
    np.testing.assert_allclose(four[0, :3] * 255, pixels().transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_frames_that_are_not_read_are_named(file_format):
    frames = [Picture.fromarray(pixels(seed)) for seed in range(3)]
    data = file_of(frames[0], file_format, save_all=True, append_images=frames[1:])
    for image in (data, Picture.open(io.BytesIO(data))):
        with pytest.warns(UserWarning, match=r"image: .*one of \d frames is read"):
            found = images()([{"image": image}])["pixel_values"]
        assert found.shape == (1, 3, 10, 12)


def test_a_phone_s_small_copy_is_no_other_picture():
    frames = [Picture.fromarray(pixels(seed)) for seed in range(2)]
    data = file_of(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Picture.open(io.BytesIO(data)).n_frames == 2
    assert images()([{"image": data}])["pixel_values"].shape == (1, 3, 10, 12)


def test_broken_exif_data_say_nothing():
    picture = Picture.fromarray(pixels())
    picture.info["exif"] = b"Exif\x00\x00nothing"
    np.testing.assert_array_equal(images()([{"image": picture}])["pixel_values"], images()([{"image": pixels()}])["pixel_values"])


@pytest.mark.parametrize("form", ["bytes", "path", "opened"])
def test_a_broken_picture_in_a_list_is_named(form, tmp_path):
    noise = Picture.fromarray(pixels(size=(64, 64)))
    path = tmp_path / "broken.png"
    path.write_bytes(file_of(noise)[:2000])
    good = {"image": pixels(size=(64, 64))}
    image = {"bytes": path.read_bytes(), "path": path, "opened": Picture.open(io.BytesIO(path.read_bytes()))}[form]
    message = refusal(ValueError, images(), [good, good, {"image": image}, good])
    assert message.startswith("row 2: image: expected a picture, got ")


def test_a_tensor_whose_channels_cannot_be_told_is_refused():
    message = refusal(ValueError, images(), [{"image": torch.zeros(3, 5, 3, dtype=torch.uint8)}])
    assert message.startswith("row 0: image: expected a tensor whose shape tells where its 3 channels are, got (3, 5, 3).")


BAD_IMAGES = {
    "nothing": ({"img": "cat"}, ValueError, "expected the key 'image' or 'pixel_values', got only ['img']."),
    "grey": ({"image": pixels()[..., 0]}, ValueError, "image: expected shape (height, width, 3), got (10, 12)."),
    "two channels": ({"image": pixels()[..., :2]}, ValueError, "image: expected shape (height, width, 3), got (10, 12, 2)."),
    "empty": ({"image": np.zeros((0, 5, 3), np.uint8)}, ValueError, "image: expected shape (height, width, 3), got (0, 5, 3)."),
    "real numbers": (
        {"image": pixels() / 255},
        TypeError,
        "image: expected whole numbers from 0 to 255, got float64. Multiply 0 to 1 by 255, and round to uint8. What an image "
        "processor has made goes into pixel_values.",
    ),
    "too bright": (
        {"image": pixels().astype(np.int64) + 1},
        ValueError,
        "image: expected whole numbers from 0 to 255, got 1 to 256.",
    ),
    "no such file": (
        {"image": "cat.png"},
        FileNotFoundError,
        "image: expected the path of a file, got 'cat.png', where there is none.",
    ),
    "no picture": (
        {"image": b"GIF"},
        ValueError,
        "image: expected a picture, got bytes, which has the format of none.",
    ),
    "no bytes and no path": (
        {"image": {"bytes": None, "path": None}},
        ValueError,
        "image: expected bytes or a path, got a dictionary without them.",
    ),
    "16 bits": (
        {"image": pixels().astype(np.uint16)},
        ValueError,
        "image: expected whole numbers from 0 to 255, got uint16, whose white is 65535. Divide by 257, and round to uint8.",
    ),
    "masked": (
        {"image": np.ma.array(pixels(), mask=pixels() > 9)},
        ValueError,
        "image: expected numbers, got a masked array in which some are missing. Fill or remove them.",
    ),
    "raw pixel values": (
        {"pixel_values": pixels().transpose(2, 0, 1)},
        TypeError,
        "pixel_values: expected real numbers, got uint8. Raw images go into the key 'image'.",
    ),
    "pixel values of one channel": (
        {"pixel_values": np.zeros((1, 8, 8))},
        ValueError,
        "pixel_values: expected shape (3, height, width), got (1, 8, 8).",
    ),
    "pixel values that are NaN": (
        {"pixel_values": np.full((3, 8, 8), np.nan)},
        ValueError,
        "pixel_values: expected finite float32 numbers, got NaN, infinity or larger ones.",
    ),
    "another size": (
        {"image": pixels(size=(10, 11))},
        ValueError,
        "expected an image of height and width (10, 12), as row 0 has, got (10, 11). Resize the images, or make the processor "
        "with an image_processor that does.",
    ),
    "no dictionary": (
        pixels(),
        TypeError,
        "expected a dictionary with 'image', got ndarray. Tables, graphs of libraries, SMILES strings and pictures become such "
        "rows by lps_hf.data.to_rows.",
    ),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_impossible_image_is_refused(name):
    row, kind, message = BAD_IMAGES[name]
    found = refusal(kind, images(), [{"image": pixels()}, row])
    assert found == f"row 1: {message}" or (name == "no picture" and found.startswith(f"row 1: {message}"))


def test_a_saved_processor_brings_its_image_processor_with_it(tmp_path):
    processor = images(image_processor=vit_processor())
    processor.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["processor_config.json"]
    rows = [{"image": pixels(0), "label": 1}, {"image": pixels(1, size=(7, 9)), "label": 2}]
    expected = processor(rows)
    for again in (LPSProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(again) is LPSProcessor
        assert again.to_json_string() == processor.to_json_string()
        np.testing.assert_array_equal(again(rows)["pixel_values"], expected["pixel_values"])
    # A pipeline of transformers looks for the image processor alone.
    alone = AutoImageProcessor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(alone(images=[pixels(0)])["pixel_values"][0], expected["pixel_values"][0])


def test_without_an_image_processor_none_is_saved(tmp_path):
    images().save_pretrained(tmp_path)
    again = LPSProcessor.from_pretrained(tmp_path)
    assert again.image_processor is None
    assert vars(again) == vars(images())
    assert "image_processor" not in again.to_dict()


def test_a_classifier_keeps_its_logits(tmp_path):
    torch.manual_seed(0)
    classifier = ViTForImageClassification(ViTConfig(**{**tiny_vit().to_dict(), "num_labels": 4})).eval()
    classifier.save_pretrained(tmp_path)
    vit_processor().save_pretrained(tmp_path)
    model = LPSForImageClassification.from_backbone_pretrained(str(tmp_path), group="C_4", distribution="none")
    processor = LPSProcessor.from_backbone_pretrained(str(tmp_path), model.config)
    pictures = [pixels(0), pixels(1, size=(40, 20))]
    batch = processor([{"image": picture, "label": 1} for picture in pictures], return_tensors="pt")
    with torch.no_grad():
        expected = classifier(**AutoImageProcessor.from_pretrained(tmp_path)(images=pictures, return_tensors="pt")).logits
        outputs = model(**batch)
    torch.testing.assert_close(outputs.logits, expected)
    assert outputs.loss.isfinite()


def test_from_config_knows_images_by_their_pixels():
    config = LPSConfig(backbone_config=tiny_vit(), group="C_4", num_labels=5)
    batch = LPSProcessor.from_config(config)([{"image": pixels(size=(32, 32)), "label": 4}])
    assert set(batch) == {"pixel_values", "labels"}
    assert LPSProcessor.from_config(config, vit_processor()).image_processor.size == {"height": 32, "width": 32}


def test_an_image_processor_of_a_graph_is_refused():
    with pytest.raises(ValueError, match="image_processor: expected None for the inputs node_features, edge_features"):
        LPSProcessor.from_config(tiny_config(), vit_processor())


def test_without_pillow_an_image_processor_says_what_to_install(tmp_path, monkeypatch):
    images(image_processor=vit_processor()).save_pretrained(tmp_path)
    monkeypatch.setattr(row_images, "is_vision_available", lambda: False)
    config = LPSConfig(backbone_config=tiny_vit(), group="C_4")
    message = "expected the package Pillow, which is not installed. Run 'pip install pillow'"
    with pytest.raises(ImportError, match=message):
        LPSProcessor.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match=message):
        LPSProcessor.from_backbone_pretrained(str(tmp_path), config)
    # Arrays need no Pillow.
    assert images()([{"image": pixels()}])["pixel_values"].shape == (1, 3, 10, 12)


def test_code_of_an_image_processor_is_not_run():
    settings = {"image_processor_type": "Unknown", "auto_map": {"AutoImageProcessor": "evil.Unknown"}}
    with pytest.raises(ValueError, match="trust_remote_code"):
        images(image_processor=settings)


def test_a_message_tells_the_sizes_of_the_image_that_was_given(tmp_path):
    save_tiny_classifier(tmp_path)
    for group, distribution in (("C_4", "canonical"), ("D_4", "learned"), ("C_8", "haar")):
        model = LPSForImageClassification.from_backbone_pretrained(str(tmp_path), group=group, distribution=distribution).eval()
        with pytest.raises(ValueError, match=f"group {group} has quarter turns .* got height 32 and width 48"):
            model(pixel_values=torch.rand(1, 3, 32, 48))
    with pytest.raises(ValueError, match="images that are large enough for ViTForImageClassification, got height 3 and width 3"):
        model(pixel_values=torch.rand(1, 3, 3, 3))


def save_tiny_classifier(folder):
    ViTForImageClassification(ViTConfig(**{**tiny_vit().to_dict(), "num_labels": 4})).save_pretrained(folder)
