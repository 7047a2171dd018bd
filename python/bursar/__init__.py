"""What a training script says to bursar, and what bursar says to it.

Everything goes through environment variables and files, so a script needs this module for comfort alone. Where a script does
not run under bursar nothing happens: metrics go nowhere, no notice ever comes, and checkpoints go to a folder of your choice.

>>> import bursar
>>> bursar.report(step=1, loss=0.5)
>>> bursar.should_stop()
False
"""

from ._checkpoints import checkpoint, checkpoint_dir, latest_checkpoint
from ._notices import notice, on_stop, should_stop
from ._place import (
    attempt,
    experiment_id,
    is_main,
    local_rank,
    rank,
    running_under_bursar,
    world_size,
)
from ._report import report

__all__ = [
    "attempt",
    "checkpoint",
    "checkpoint_dir",
    "experiment_id",
    "is_main",
    "latest_checkpoint",
    "local_rank",
    "notice",
    "on_stop",
    "rank",
    "report",
    "running_under_bursar",
    "should_stop",
    "world_size",
]
