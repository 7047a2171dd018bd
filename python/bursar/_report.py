"""Metrics."""

import json
import os
import threading
from typing import Any, Dict, Optional

from ._place import is_main

_LOCK = threading.Lock()


def report(step: Optional[int] = None, **metrics: Any) -> None:
    """Reports metrics: numbers, or what becomes one by ``float`` (a tensor of one element, a NumPy scalar).

    ``step`` says how far the training is. With ``total_steps=`` beside it, or ``progress=`` from 0 to 1, ``bursar show`` tells
    how long it takes yet. Of several processes the first reports; calls in the others do nothing.

    A run must not end because its metrics cannot be written, so nothing is raised for that. What is no number is an error of
    the script and raises ``TypeError`` or ``ValueError``.
    """
    values: Dict[str, float] = {}
    if step is not None:
        values["step"] = _number(step)
    for name, value in metrics.items():
        values[name] = _number(value)
    path = os.environ.get("BURSAR_METRICS")
    if not values or not path or not is_main():
        return
    line = (json.dumps(values) + "\n").encode()
    # One write to a file opened for appending, so that lines of several threads and processes stay whole.
    with _LOCK:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError:
            pass


def _number(value: Any) -> float:
    if isinstance(value, (bool, int, float)):
        return value
    return float(value)
