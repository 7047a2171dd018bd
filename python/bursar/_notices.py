"""Notices: the cloud takes the machine back, or bursar wants the script to end."""

import json
import os
import signal
import threading
import time
from datetime import datetime, timezone
from typing import Any, Callable, List, Optional

_told = threading.Event()
_callbacks: List[Callable[[], None]] = []
_before: Any = None
_listens = False


def notice() -> Optional[float]:
    """How many seconds are left until the cloud takes the machine back; ``None`` as long as it does not.

    0 where the time is over already. Cheap enough to be asked after every batch.
    """
    path = os.environ.get("BURSAR_NOTICE_FILE")
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            gone_at = json.load(file)["gone_at"]
        return max(0.0, _parse(gone_at) - time.time())
    except (OSError, ValueError, KeyError, TypeError):
        # There is none, or it is being written: the next look sees it.
        return None


def should_stop() -> bool:
    """Whether it is time to save a checkpoint and to end: SIGTERM came, or the cloud takes the machine back.

    Call it once before the training begins, in the main thread: from then on SIGTERM no longer ends the process at once. After
    a ``True``, save and exit; bursar kills what is still there after the grace (``checkpoint.grace``).
    """
    _listen()
    return _told.is_set() or notice() is not None


def on_stop(callback: Callable[[], None]) -> None:
    """Has ``callback`` called when SIGTERM comes, in the main thread and between two instructions: set a flag, save later."""
    _callbacks.append(callback)
    _listen()


def _listen() -> None:
    global _before, _listens
    if _listens or threading.current_thread() is not threading.main_thread():
        return
    _listens = True
    _before = signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: Any) -> None:
    _told.set()
    for callback in list(_callbacks):
        callback()
    # Somebody who listened before us still hears it; the default, which ends the process, does not count.
    if callable(_before):
        _before(number, frame)


def _parse(moment: str) -> float:
    # Python 3.8 knows neither `Z` nor fractions of other lengths than 3 and 6 digits.
    text = moment.rstrip("Z")
    whole, _, fraction = text.partition(".")
    seconds = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return seconds + (float("0." + fraction) if fraction else 0.0)
