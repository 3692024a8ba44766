"""The Trainer's pushes to the Hub, each a whole publication: weights, code, card and figures in one commit."""

import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from transformers import Trainer
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress, hf_api

from lps_hf.auto import MODEL_AUTO_CLASSES
from lps_hf.evaluation.json_text import json_text
from lps_hf.hub.errors import hub_errors
from lps_hf.hub.model_card import LPSModelCardData
from lps_hf.hub.publishing import PublishPlan, pictures_in, publish_folder
from lps_hf.hub.remote_code import SETTINGS_FILES, add_code
from lps_hf.hub.results_files import CARD_FILE, RESULTS_FILE, WEIGHTS_FILE
from lps_hf.models.modeling_lps import LPSPreTrainedModel
from lps_hf.models.processing_lps import LPSProcessor

logger = logging.get_logger(__name__)


class PublishingTrainer(Trainer):
    """`Trainer` whose every push leaves a repository that explains itself and loads without lps_hf.

    `Trainer` uploads its whole output folder, which holds no code. Models that lps_hf cannot publish, such as adapters of PEFT
    and classes of your own, are pushed as `Trainer` does.
    """

    card_data: LPSModelCardData
    """What the card says, and results.json."""
    hub_model_id: Any  # a name or None, and jobs or None; Trainer says that both are None
    push_in_progress: Any

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        with hub_errors(self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name):
            super().init_hf_repo(token, private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        if self._publishable() is None:
            return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model(_internal_call=True)  # on all processes, which may each hold a part of the weights
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        push = self._prepare_push(Path(str(self.args.output_dir)), commit_message or "End of training", token, revision)
        return push() if blocking else hf_api().run_as_future(push)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._publishable() is None:
            return super()._push_from_checkpoint(checkpoint_folder)
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return None
        if self.push_in_progress is not None and self.push_in_progress.is_done():
            self._finish_current_push()
        if self.push_in_progress is not None and not self.args.hub_always_push:
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.create_model_card()
        by_steps = self.args.save_strategy == SaveStrategy.STEPS
        progress = f"step {self.state.global_step}" if by_steps else f"epoch {int(self.state.epoch or 0)}"
        message = f"Training in progress, {progress}"
        # One after the other, in the background.
        jobs: list[Future] = [hf_api().run_as_future(self._prepare_push(Path(checkpoint_folder), message))]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            upload = hf_api().upload_folder(
                repo_id=self.hub_model_id,
                folder_path=checkpoint_folder,
                path_in_repo="last-checkpoint" if strategy == HubStrategy.CHECKPOINT else Path(checkpoint_folder).name,
                commit_message=f"{message}, checkpoint",
                token=self.args.hub_token,
                revision=self.args.hub_revision,
                run_as_future=True,
            )
            jobs.append(upload)
        if self.push_in_progress is not None:
            self.push_in_progress.jobs.extend(jobs)
        else:
            self.push_in_progress = PushInProgress(jobs)  # type: ignore[arg-type]
        return None

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        pending = getattr(self, "push_in_progress", None)
        for job in pending.jobs if pending is not None else []:
            if job.exception() is not None:  # training goes on, and nobody would hear of it
                logger.warning(f"A push to the Hub failed: {job.exception()}")
        self.push_in_progress = None

    def _publishable(self) -> tuple[LPSPreTrainedModel, LPSProcessor] | None:
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        is_known = type(model).__name__ in MODEL_AUTO_CLASSES  # and no class of somebody's own, nor an adapter
        return (model, self.processing_class) if is_known and isinstance(self.processing_class, LPSProcessor) else None

    def _prepare_push(
        self, weights_folder: Path, commit_message: str, token: str | None = None, revision: str | None = None
    ) -> "_Push":
        """Collect what goes up in a folder of its own: training goes on and writes to its folders meanwhile."""
        staged = tempfile.TemporaryDirectory(prefix="lps-hf-")
        folder, output_dir = Path(staged.name), Path(str(self.args.output_dir))
        for file in weights_folder.iterdir():
            if WEIGHTS_FILE.fullmatch(file.name) or file.name in SETTINGS_FILES:
                shutil.copyfile(file, folder / file.name)
        for name in (CARD_FILE, *pictures_in(output_dir / CARD_FILE)):
            if (output_dir / name).is_file():
                shutil.copyfile(output_dir / name, folder / name)
        if "test" in self.card_data.results:
            (folder / RESULTS_FILE).write_text(json_text(self.card_data.results) + "\n", encoding="utf-8")
        parts = self._publishable()
        assert parts is not None  # whoever calls this has seen to it
        add_code(folder, *parts)
        options = {
            "commit_message": commit_message,
            "private": self.args.hub_private_repo,
            "revision": revision or self.args.hub_revision,
            "token": token or self.args.hub_token,
        }
        return _Push(staged, self.hub_model_id, options)


class _Push:
    """A publication that is ready to go; its folder is removed afterwards."""

    def __init__(self, staged: tempfile.TemporaryDirectory, repo_id: str, options: dict[str, Any]) -> None:
        self.staged, self.repo_id, self.options = staged, repo_id, options

    def __call__(self) -> CommitInfo | PublishPlan:
        with self.staged as folder:
            return publish_folder(folder, self.repo_id, **self.options)
