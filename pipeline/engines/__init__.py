"""How a training step runs on all ranks. An engine changes the speed, never the result."""

from pipeline.engines.base import Engine, EngineState, Predict, Tensors, Trainable
from pipeline.engines.open import open_engine

__all__ = ["Engine", "EngineState", "Predict", "Tensors", "Trainable", "open_engine"]
