"""A callback for the Trainer of Hugging Face transformers: reports, and has it save and end when its machine is taken back.

    trainer = Trainer(..., args=TrainingArguments(output_dir=str(bursar.checkpoint_dir()), ...),
                      callbacks=[BursarCallback()])
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(bursar.checkpoint_dir())))
    if bursar.should_stop():
        raise SystemExit(1)  # Not 0: the training is not done.
"""

from typing import Any, Dict, Optional

import bursar
from transformers import TrainerCallback


class BursarCallback(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        bursar.should_stop()  # From here on SIGTERM is a wish and no end.

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Optional[Dict[str, Any]] = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        numbers["total_steps"] = state.max_steps
        bursar.report(step=state.global_step, **numbers)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if bursar.should_stop():
            control.should_save = True
            control.should_training_stop = True
        return control
