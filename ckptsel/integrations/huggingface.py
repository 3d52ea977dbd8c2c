"""For the `Trainer` of transformers:

Trainer(..., callbacks=[RankCheckpoints(data="my_images/")])
"""

import os
from typing import TYPE_CHECKING, Any

from ckptsel.integrations.loop import Beside, rank_beside

if TYPE_CHECKING:
    TrainerCallback = object
else:
    from transformers import TrainerCallback


class RankCheckpoints(TrainerCallback):
    """Ranks the checkpoints of a training while it goes on.

    data, out, options: as for `ckptsel.integrations.loop.rank_beside`. The checkpoints are those of the
    Trainer's `output_dir`.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self._data, self._out, self._options = data, out, options
        self._beside: Beside | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._beside = rank_beside(args.output_dir, self._data, self._out, **self._options)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._beside is not None:
            self._beside.check()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._beside is not None:
            self._beside.end()
