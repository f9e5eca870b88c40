"""Training on this machine: checked beforehand, then its ranks started together."""
