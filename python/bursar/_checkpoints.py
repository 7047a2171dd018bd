"""Checkpoints: folders that are whole or not there."""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional, Tuple, Union

_NAME = re.compile(r"checkpoint-(\d+)")
_UNFINISHED = ".unfinished-"


def checkpoint_dir(default: Union[str, Path] = "checkpoints") -> Path:
    """The folder that outlives this attempt: what lies there is found by the next one, wherever that runs.

    Where the script does not run under bursar, ``default``. Made if need be.
    """
    folder = Path(os.environ.get("BURSAR_CHECKPOINT_DIR") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def checkpoint(
    step: int, keep: Optional[int] = 2, folder: Optional[Union[str, Path]] = None
) -> Iterator[Path]:
    """Writes the checkpoint of a step: save into the folder that it gives.

    >>> with bursar.checkpoint(step) as folder:            # doctest: +SKIP
    ...     torch.save(model.state_dict(), folder / "model.pt")

    The folder gets its name once all of it is on the disk, so an interruption in the middle leaves the checkpoint before.
    An exception in the body leaves nothing. Of the older ones the newest ``keep - 1`` stay (all where it is ``None``).
    """
    if step < 0:
        raise ValueError("the steps of checkpoints begin at 0")
    parent = Path(folder) if folder is not None else checkpoint_dir()
    parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=str(parent)))
    try:
        yield unfinished
        _sync_tree(unfinished)
        final = parent / "checkpoint-{:012d}".format(step)
        # The same step may have been saved before: a folder with something in it is not replaced by a rename.
        if final.exists():
            old = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=str(parent)))
            os.rename(str(final), str(old / "old"))
            os.rename(str(unfinished), str(final))
            shutil.rmtree(str(old), ignore_errors=True)
        else:
            os.rename(str(unfinished), str(final))
        _sync(parent)
    except BaseException:
        shutil.rmtree(str(unfinished), ignore_errors=True)
        raise
    if keep is not None:
        for _, path in _all(parent)[: -max(keep, 1)]:
            shutil.rmtree(str(path), ignore_errors=True)


def latest_checkpoint(folder: Optional[Union[str, Path]] = None) -> Optional[Tuple[int, Path]]:
    """The newest whole checkpoint, as its step and its folder; ``None`` where there is none: then begin anew.

    What earlier attempts left unfinished is removed, which is why it is called before the first checkpoint and by one process.
    """
    parent = Path(folder) if folder is not None else checkpoint_dir()
    if not parent.is_dir():
        return None
    for path in parent.glob(_UNFINISHED + "*"):
        shutil.rmtree(str(path), ignore_errors=True)
    found = _all(parent)
    return found[-1] if found else None


def _all(parent: Path) -> List[Tuple[int, Path]]:
    found = []
    for path in parent.iterdir():
        name = _NAME.fullmatch(path.name)
        if name and path.is_dir():
            found.append((int(name.group(1)), path))
    return sorted(found)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(str(folder)):
        for name in files:
            _sync(Path(root) / name)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
