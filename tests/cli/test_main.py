"""The command line: help, what it prints where, and its exit codes."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from tqdm.auto import tqdm

import lps_hf
from lps_hf import cli
from lps_hf.cli.command import TASK_NAMES
from lps_hf.cli.main import COMMANDS
from lps_hf.data.rows import TASK_COLUMNS

RESULTS = {
    "test_accuracy": 0.98,
    "wl1_accuracy": 0.35,
    "chance_accuracy": 1 / 3,
    "num_eval_samples": 10,
    "equivariance_error": 0.123,
    "equivariance_error_standard_error": 0.004,
    "backbone_equivariance_error": 0.9,
    "backbone_equivariance_error_standard_error": 0.01,
    "seconds": 61.4,
}


@pytest.fixture
def quickstart(monkeypatch):
    """Collects the calls of `run_quickstart`, which does nothing; put an exception in `.error` to have it raised."""
    from transformers.utils import logging

    from lps_hf.training import quickstart as module

    class Recorder:
        calls, error = [], None

        def __call__(self, *arguments):
            self.calls.append(arguments)
            if self.error is not None:
                raise self.error
            return RESULTS

    recorder = Recorder()
    recorder.calls = []
    monkeypatch.setattr(module, "run_quickstart", recorder)
    monkeypatch.setattr(logging, "disable_progress_bar", lambda: None)
    return recorder


def test_quickstart_prints_the_figures(quickstart, capsys, tmp_path):
    assert cli.main(["quickstart", "--output_dir", str(tmp_path), "--steps", "7", "--seed", "3"]) == 0
    assert quickstart.calls == [(str(tmp_path), 7, 3)]
    output = capsys.readouterr()
    assert not output.err
    for text in ("98.0%", "35.0%", "33.3%", "0.123 ± 0.004", "0.900 ± 0.010", "10 samples", "61 s", str(tmp_path)):
        assert text in output.out


def test_quickstart_has_defaults(quickstart, capsys):
    assert cli.main(["quickstart"]) == 0
    assert quickstart.calls == [("quickstart", 500, 0)]


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("bad value"), RuntimeError("bad luck")])
def test_a_job_that_fails_says_why_on_stderr(quickstart, capsys, error):
    quickstart.error = error
    assert cli.main(["quickstart"]) == 1
    output = capsys.readouterr()
    assert output.err == f"lps-hf: {error}\n"
    assert not output.out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (KeyError("a mistake"), "KeyError: 'a mistake'. Add --traceback to see where it comes from."),
        (AssertionError(), "AssertionError. Add --traceback to see where it comes from."),
        (ValueError(""), "ValueError. Add --traceback to see where it comes from."),
        (yaml.YAMLError("no YAML"), "YAMLError: no YAML. Add --traceback to see where it comes from."),
        (MemoryError(), "MemoryError. Add --traceback to see where it comes from."),
    ],
)
def test_whatever_fails_is_one_line(quickstart, capsys, error, line):
    quickstart.error = error
    assert cli.main(["quickstart"]) == 1
    assert capsys.readouterr().err == f"lps-hf: {line}\n"


def test_a_cause_is_told_where_the_error_itself_says_little(quickstart, capsys):
    class DatasetGenerationError(Exception):
        pass

    quickstart.error = DatasetGenerationError("An error occurred.")
    quickstart.error.__cause__ = KeyError("column")
    assert cli.main(["quickstart"]) == 1
    assert "lps-hf: DatasetGenerationError: An error occurred; KeyError: 'column'. Add" in capsys.readouterr().err


def test_the_line_does_not_stand_behind_a_progress_bar(quickstart, capsys, monkeypatch):
    from lps_hf.training import quickstart as module

    bars = []

    def fail(*arguments):
        bars.append(tqdm(total=2, mininterval=0))
        raise OSError("disk full")

    monkeypatch.setattr(module, "run_quickstart", fail)
    assert cli.main(["quickstart"]) == 1
    assert capsys.readouterr().err.endswith("\nlps-hf: disk full\n")


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lps-hf {lps_hf.__version__}\n"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_closed_pipe_is_no_error(capfd, monkeypatch, flags):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["info", *flags]) == 0
        print("more", file=stdout)  # and nothing when Python closes it at the end
    assert not capfd.readouterr().err


def test_quickstart_without_matplotlib_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["quickstart"]) == 1
    expected = "lps-hf: quickstart draws a figure and needs matplotlib: pip install 'lps_hf[viz]'.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["quickstart", "--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["quickstart", "--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_wrong_arguments_end_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "usage: lps-hf" in output.err
    assert not output.out


def test_help_lists_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert {command.name for command in COMMANDS} == {
        *("quickstart", "symmetrize", "train", "evaluate", "predict", "equivariance"),
        *("card", "publish", "verify", "convert", "info"),
    }
    for command in COMMANDS:
        assert f"    {command.name}" in output
    assert "130  interrupted" in output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command_is_a_manual(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        cli.main([command.name, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: lps-hf {command.name}")
    assert " ".join(command.description.split()) in " ".join(output.split())
    assert f"examples:\n  {command.examples[0]}" in output
    assert all(example.startswith(f"lps-hf {command.name}") or "verify" in example for example in command.examples)
    assert "--json" in output
    assert max(map(len, output.splitlines())) <= 130


def test_the_tasks_are_those_of_the_package():
    assert set(TASK_NAMES) == set(TASK_COLUMNS)


def test_json_is_one_object_and_what_a_job_prints_goes_to_stderr(quickstart, capsys, monkeypatch):
    from lps_hf.training import quickstart as module

    def talkative(*arguments):
        print("Training …")
        return {**RESULTS, "loss": float("nan"), "history": [1.0, float("inf")]}

    monkeypatch.setattr(module, "run_quickstart", talkative)
    assert cli.main(["quickstart", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {**RESULTS, "loss": None, "history": [1.0, None]}
    assert output.err == "Training …\n"


def test_a_traceback_is_shown_on_request(quickstart, capsys):
    quickstart.error = OSError("disk full")
    assert cli.main(["quickstart", "--traceback"]) == 1
    output = capsys.readouterr()
    assert "Traceback (most recent call last)" in output.err
    assert output.err.endswith("lps-hf: disk full\n")


def test_an_interruption_has_an_exit_code_of_its_own(quickstart, capsys):
    quickstart.error = KeyboardInterrupt()
    assert cli.main(["quickstart"]) == 130
    assert capsys.readouterr().err == "lps-hf: interrupted\n"


def test_a_process_without_steps_ends_with_1_and_says_so(tmp_path):
    command = [sys.executable, "-m", "lps_hf.cli", "quickstart", "--steps", "0", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "lps-hf: num_steps: expected at least 1, got 0.\n"
    assert not done.stdout
    assert not (tmp_path / "out").exists()
