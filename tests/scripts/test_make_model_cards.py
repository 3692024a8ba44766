"""The released model cards: what the script makes of the runs now, and no number that is not in a run's files."""

import json
import math
import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from lps_hf.hub.model_card import TEMPLATE
from lps_hf.models import modeling_heads_lps
from lps_hf.models.configuration_lps import LPSConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_model_cards.py"
RUNS, CARDS = ROOT / "scripts" / "recipes" / "results", ROOT / "model_cards"
NAMES = sorted(file.parent.name for file in RUNS.glob("*/results.json"))
# A number that stands alone, not a part of a name such as int64 or S_3.
NUMBER = re.compile(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])")
# 95 % of the rule of three; the two ends of edges in a shape.
CONSTANTS = {"95 % probability", "(batch, 2, edges)"}


def leaves(value: Any) -> list[Any]:
    """All values in nested dicts and lists, and how many there are in each."""
    if isinstance(value, dict):
        return [len(value), *(leaf for part in value.values() for leaf in leaves(part))]
    if isinstance(value, list):
        return [len(value), *(leaf for part in value for leaf in leaves(part))]
    return [value]


def derived(results: dict[str, Any], config: dict[str, Any]) -> list[float]:
    """What a card computes itself: parameters, and the spread that the number of rows alone gives an accuracy."""
    with torch.device("meta"):
        model = getattr(modeling_heads_lps, config["architectures"][0])(LPSConfig.from_dict(config))
    count = sum(parameter.numel() for parameter in model.parameters())
    accuracy, rows = results["test"].get("accuracy"), results["num_test"]
    spread = [] if accuracy is None else [math.sqrt(accuracy * (1 - accuracy) / rows), 3 / rows]
    return [count, count / 1e6, *spread]


def is_rounded(token: str, value: float) -> bool:
    """Whether a number as it is written is a value, as far as its digits go. A whole number has to be equal."""
    written = Decimal(token.replace(",", ""))
    exponent = int(written.as_tuple().exponent)
    if exponent >= 0 and "e" not in token:
        return float(written) == value
    return abs(float(written) - value) <= 0.5 * 10.0**exponent * (1 + 1e-9)


def unexplained_numbers(card: str, results: dict[str, Any], config: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """The numbers on a card that no file of its run explains.

    Code is an example, and lines that stand in the template as they are say nothing of this model.
    """
    values = leaves([results, config, given])
    names = {value for value in values if isinstance(value, str) and len(value) > 1}
    names |= {re.sub(r"[^\w.-]+", "-", name) for name in names}  # as the header writes names of generated data
    texts = sorted(names, key=len, reverse=True)
    known = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    known += [float(number) for text in texts for number in re.findall(r"\d+", text)] + derived(results, config)
    constant = set(TEMPLATE.splitlines())
    lines = [line for line in re.sub(r"```.*?```", "", card, flags=re.DOTALL).splitlines() if line not in constant]
    found = []
    for line in lines:
        line = re.sub(r"\]\(https?://[^)]*\)", "]", line)
        for text in (*CONSTANTS, *texts):
            line = line.replace(text, " ")
        found += [token for token in NUMBER.findall(line) if not any(is_rounded(token, value) for value in known)]
    return found


def files_of(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    folder = RUNS / name
    results, config = (json.loads((folder / file).read_text()) for file in ("results.json", "config.json"))
    return results, config, yaml.safe_load((folder / "card.yaml").read_text())


def test_there_are_cards():
    assert {"quickstart", "mutag"} <= set(NAMES)
    assert sorted(file.stem for file in CARDS.glob("*.md") if file.name != "README.md") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_what_the_script_makes_now(name, script):
    assert (CARDS / f"{name}.md").read_text(encoding="utf-8") == script.card_of(RUNS / name)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_card_is_in_the_files_of_its_run(name):
    assert unexplained_numbers((CARDS / f"{name}.md").read_text(encoding="utf-8"), *files_of(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_a_card_lies_beside_it_and_its_header_is_read_by_the_hub(name):
    text = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert [figure for figure in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text) if not (CARDS / figure).is_file()] == []
    entries = model_index_to_eval_results(metadata_load(CARDS / f"{name}.md")["model-index"])[1]
    assert {"equivariance_error", files_of(name)[0]["metric"]} <= {entry.metric_type for entry in entries}


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        (r"Its accuracy is (\d\.\d+)", "0.4321"),
        (r"this model, 10 samples \| (\d\.\d+)", "0.0123"),
        (r"value: (\d\.\d+)", "0.98765"),
        (r"optimizer steps \| (\d+)", "123456"),
        (r"(\d[\d,.]*) (?:million )?parameters", "77,777"),
    ],
)
def test_a_broken_card_is_noticed(pattern, wrong):
    card = (CARDS / "mutag.md").read_text(encoding="utf-8")
    place = re.search(pattern, card)
    broken = card[: place.start(1)] + wrong + card[place.end(1) :]
    assert unexplained_numbers(broken, *files_of("mutag")) == [wrong]


def test_a_whole_number_is_itself_and_others_are_rounded():
    assert is_rounded("0.789", 15 / 19)
    assert is_rounded("3.2e-16", 3.21e-16)
    assert is_rounded("1,000", 1000)
    assert not is_rounded("0.788", 15 / 19)
    assert not is_rounded("1", 15 / 19)
    assert not is_rounded("3.2e-16", 3.3e-16)


def test_check_says_which_card_is_out_of_date(script, tmp_path, capsys):
    shutil.copytree(RUNS / "quickstart", tmp_path / "runs" / "quickstart")
    flags = ["--results_dir", str(tmp_path / "runs"), "--output_dir", str(tmp_path / "cards")]
    assert script.main([*flags, "--check"]) == 1
    assert not (tmp_path / "cards").exists()
    assert script.main(flags) == 0
    assert (tmp_path / "cards" / "quickstart.png").stat().st_size > 0
    assert script.main([*flags, "--check"]) == 0
    file = tmp_path / "runs" / "quickstart" / "results.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    capsys.readouterr()
    assert script.main([*flags, "--check"]) == 1
    assert "quickstart.md" in capsys.readouterr().err
