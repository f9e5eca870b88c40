"""The state that engines share: parameters, buffers, momentum and the loss scale."""

import torch

from pipeline.engines import EngineState, Tensors, Trainee


def read_state(trainee: Trainee, scaler: torch.amp.GradScaler) -> EngineState:
    """Return the live state of what is trained."""
    return EngineState(trainee.network.state_dict(), _momentum(trainee), scaler.state_dict())


@torch.no_grad()
def write_state(state: EngineState, trainee: Trainee, scaler: torch.amp.GradScaler) -> None:
    """Copy a saved state into what is trained; memory formats and devices stay as they are."""
    trainee.network.load_state_dict(state.model)
    for name, buffer in _momentum(trainee).items():
        buffer.copy_(state.momentum[name])
    if state.scaler and scaler.is_enabled():
        scaler.load_state_dict(dict(state.scaler))


def _momentum(trainee: Trainee) -> Tensors:
    return {
        name: trainee.optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in trainee.network.named_parameters()
    }
