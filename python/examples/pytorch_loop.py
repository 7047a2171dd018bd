"""A plain PyTorch loop that reports, saves, resumes, and ends in time when its machine is taken back."""

import bursar
import torch

STEPS = 1000
SAVE_EVERY = 100


def main() -> None:
    model = torch.nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    first = 0
    saved = bursar.latest_checkpoint()
    if saved is not None:
        step, folder = saved
        state = torch.load(folder / "state.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = step + 1

    def save(step: int) -> None:
        with bursar.checkpoint(step) as folder:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, folder / "state.pt")

    for step in range(first, STEPS):
        inputs = torch.randn(32, 10)
        loss = ((model(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bursar.report(step=step, total_steps=STEPS, loss=loss)
        stop = bursar.should_stop()
        if stop or step % SAVE_EVERY == SAVE_EVERY - 1 or step == STEPS - 1:
            save(step)
        if stop:
            # Not 0: that would say that the training is done. bursar asked for it, so it counts as no failure.
            raise SystemExit(1)


if __name__ == "__main__":
    main()
