"""A small model trained by several processes with DistributedDataParallel, which saves after every step and goes on from
the newest checkpoint. Started by torchrun on each node; the first process of all saves and reports."""

import json
import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = int(os.environ.get("STEPS", "20"))
PAUSE_S = float(os.environ.get("PAUSE_S", "0"))

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
folder = os.environ["BURSAR_CHECKPOINT_DIR"]
newest = os.path.join(folder, "model.pt")

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
done = 0
if os.path.exists(newest):
    saved = torch.load(newest)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    done = saved["step"]
print(f"rank {rank} of {size} goes on from step {done}", flush=True)
parallel = DistributedDataParallel(model)
weights = torch.tensor([[1.0], [2.0], [-1.0], [0.5]])

for step in range(done + 1, STEPS + 1):
    # Each rank its own part of the data, the same whenever the step is done again.
    torch.manual_seed(step * size + rank)
    inputs = torch.randn(64, 4)
    loss = torch.nn.functional.mse_loss(parallel(inputs), inputs @ weights)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if rank == 0:
        partial = newest + ".tmp"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
        os.replace(partial, newest)
        with open(os.environ["BURSAR_METRICS"], "a") as metrics:
            metrics.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
        print(f"step {step} is saved", flush=True)
    dist.barrier()
    time.sleep(PAUSE_S)

total = sum(parameter.sum() for parameter in model.parameters())
print(f"rank {rank}: the sum of all weights is {total.item():.6f}", flush=True)
dist.destroy_process_group()
