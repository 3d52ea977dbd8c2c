"""For Lightning:

Trainer(callbacks=[ModelCheckpoint(...), RankCheckpoints(data="my_images/")])
"""

import os
import sys
from typing import TYPE_CHECKING, Any

from ckptsel.common.streams import say
from ckptsel.integrations.loop import Beside, rank_beside

if TYPE_CHECKING:
    Callback = object
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    from lightning.pytorch import Callback


class RankCheckpoints(Callback):
    """Ranks the checkpoints of a fit while it goes on.

    data, out, options: as for `ckptsel.integrations.loop.rank_beside`. run: the folder of the
    checkpoints, by default that of the first ModelCheckpoint.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        run: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._data, self._out, self._run, self._options = data, out, run, options
        self._beside: Beside | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        run = self._run or getattr(trainer.checkpoint_callback, "dirpath", None)
        if run is None:
            say("ckptsel: warning: no ModelCheckpoint writes any file: there is nothing to rank")
            return
        self._beside = rank_beside(run, self._data, self._out, **self._options)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        if self._beside is not None:
            self._beside.check()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and self._beside is not None:
            self._beside.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._beside is not None:
            self._beside.end(wait_s=0)
