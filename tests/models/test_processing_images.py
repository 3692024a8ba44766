"""Rows of images: the backbone's own image processor, or numbers from 0 to 1."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as Picture
from transformers import AutoImageProcessor, AutoProcessor, ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

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
    assert message == "row 1: expected a label 'label' as the other rows have, got none."
    message = refusal(ValueError, images(), [{**row, "label": 4}])
    assert message == "row 0: label: expected 0 to 3, or -100 for missing, got 4."


BAD_IMAGES = {
    "nothing": ({"img": pixels()}, ValueError, "expected the key 'image' or 'pixel_values', got only ['img']."),
    "grey": ({"image": pixels()[..., 0]}, ValueError, "image: expected shape (height, width, 3), got (10, 12)."),
    "channels first": (
        {"image": pixels().transpose(2, 0, 1)},
        ValueError,
        "image: expected shape (height, width, 3), got (3, 10, 12).",
    ),
    "empty": ({"image": np.zeros((0, 5, 3), np.uint8)}, ValueError, "image: expected shape (height, width, 3), got (0, 5, 3)."),
    "real numbers": (
        {"image": pixels() / 255},
        TypeError,
        "image: expected whole numbers from 0 to 255, got float64. Real numbers go into pixel_values.",
    ),
    "too bright": (
        {"image": pixels().astype(np.int64) + 1},
        ValueError,
        "image: expected whole numbers from 0 to 255, got 1 to 256.",
    ),
    "a path": ({"image": "cat.png"}, TypeError, "image: expected numbers, got <U7."),
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
    "no dictionary": (pixels(), TypeError, "expected a dictionary with 'image', got ndarray."),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_impossible_image_is_refused(name):
    row, kind, message = BAD_IMAGES[name]
    assert refusal(kind, images(), [{"image": pixels()}, row]) == f"row 1: {message}"


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
