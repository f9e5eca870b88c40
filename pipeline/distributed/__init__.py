"""The ranks of a run and how they work together.

rendezvous connects them; world is what each knows of itself and how it communicates; stopping lets
all stop after the same step; health measures nodes, GPUs and links before training.
"""
