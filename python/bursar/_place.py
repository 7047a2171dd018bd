"""Where this process stands: which experiment and attempt, and which of several processes."""

import os
from typing import Optional


def running_under_bursar() -> bool:
    """Whether bursar started this."""
    return "BURSAR_ATTEMPT_ID" in os.environ


def experiment_id() -> Optional[str]:
    """The experiment's id, the same for all its attempts; ``None`` elsewhere."""
    return os.environ.get("BURSAR_EXPERIMENT_ID")


def attempt() -> int:
    """Which attempt this is, from 1."""
    return _number("BURSAR_ATTEMPT", 1)


def rank() -> int:
    """Which of all processes this is, as ``torchrun`` says it; 0 where there is one."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Which of the processes on this machine this is; 0 where there is one."""
    return _number("LOCAL_RANK", 0)


def world_size() -> int:
    """How many processes there are."""
    return _number("WORLD_SIZE", 1)


def is_main() -> bool:
    """Whether this is the process that reports and saves for all."""
    return rank() == 0


def _number(name: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(name, ""))
    except ValueError:
        return otherwise
