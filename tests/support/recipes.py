"""A recipe that is valid, for tests that change one thing in it."""

GOOD = """\
name: good
data:
  dir: somewhere
model: {name: resnet50}
train:
  epochs: 90
  global_batch: 256
optim: {lr: 0.1}
schedule:
  name: cosine
"""
