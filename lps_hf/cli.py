"""The command `lps-hf`: thin, every subcommand calls a room."""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; those of the process by default.

    Returns:
        Exit code: 0 on success, 1 where the job failed with a message, 2 where the arguments are wrong.
    """
    parser = argparse.ArgumentParser(prog="lps-hf", description="Make any pretrained network equivariant.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    quickstart = commands.add_parser(
        "quickstart",
        help="train, evaluate, save and reload a small symmetrized model; no network, under two minutes",
        description="Symmetrizes a tiny ViT, trains it on circular skip links (a task that no 1-WL network can solve), saves it, "
        "reloads it in a fresh process and measures its equivariance. Writes a checkpoint, results.json and quickstart.png.",
    )
    quickstart.add_argument("--output_dir", default="quickstart", help="folder to write to (default: %(default)s)")
    quickstart.add_argument("--steps", type=int, default=500, help="training steps (default: %(default)s)")
    quickstart.add_argument("--seed", type=int, default=0, help="seed of data, weights and draws (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        return _run_quickstart(options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"lps-hf: {error}", file=sys.stderr)
        return 1


def _run_quickstart(options: argparse.Namespace) -> int:
    if find_spec("matplotlib") is None:
        raise ImportError("quickstart draws a figure and needs matplotlib: pip install 'lps_hf[viz]'.")
    from transformers.utils import logging

    from lps_hf.training.quickstart import run_quickstart

    logging.disable_progress_bar()
    results = run_quickstart(options.output_dir, options.steps, options.seed)
    print(
        f"\nTest accuracy           {results['test_accuracy']:.1%}   (best 1-WL network {results['wl1_accuracy']:.1%}, chance "
        f"{results['chance_accuracy']:.1%})\n"
        f"Equivariance error      {results['equivariance_error']:.3f} ± {results['equivariance_error_standard_error']:.3f}"
        f"   relative, {results['num_eval_samples']} samples; falls as 1/√samples\n"
        f"  of the plain backbone {results['backbone_equivariance_error']:.3f} ± "
        f"{results['backbone_equivariance_error_standard_error']:.3f}\n"
        f"Reloaded logits         equal\n"
        f"Time                    {results['seconds']:.0f} s\n"
        f"Written to              {options.output_dir}  (see quickstart.png)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
