"""Who answers `push_to_hub`: where lps_hf is imported, its Hub room; for a model that runs by its own code, transformers."""

from collections.abc import Callable
from typing import Any

# By "model", "processor" and "pipeline": a function of the object, the repository and the options of `push_to_hub`. The package
# fills it when it is imported, as this folder cannot import what lies above it.
PUSHERS: dict[str, Callable[..., Any]] = {}


def split_push_options(folder: Any, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Of what `save_pretrained(folder, push_to_hub=True, **options)` was given, the repository and what `push_to_hub` takes.

    Args:
        folder: Where it saves; its name is that of the repository, unless `repo_id` is given.
        options: What it was given; what belongs to the push is taken out.

    Returns:
        Repository and options.
    """
    repo_id = options.pop("repo_id", None) or str(folder).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    names = ("commit_message", "commit_description", "private", "revision", "create_pr", "tags")
    pushing = {name: options.pop(name) for name in names if name in options}
    if "token" in options:  # which saving may need, too
        pushing["token"] = options["token"]
    return repo_id, pushing
