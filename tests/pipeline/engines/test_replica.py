"""A rank that compiles nothing does not import torch's compiler: that is half of its start-up."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch
from torch import distributed
from pipeline.config.schema import Sgd
from pipeline.engines.replica import EagerReplica
from pipeline.optim.build import build_optimizer

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
network = torch.nn.Linear(3, 2)
optimizer = build_optimizer(network, Sgd(lr=0.1))
replica = EagerReplica(network, gradient_as_bucket_view=True)
for _ in range(2):
    with replica.no_sync():
        replica(torch.ones(4, 3)).sum().backward()
    replica(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print(sorted({name.split(".")[1] for name in sys.modules if name.startswith("torch._")}))
import torch._dynamo  # it is still there for others
assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer"
"""


@pytest.mark.process
def test_training_without_compiling_imports_no_compiler() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "_dynamo" not in run.stdout
    assert "_inductor" not in run.stdout
