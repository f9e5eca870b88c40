"""A finished checkpoint in use: found, opened, inspected, averaged, converted, and classifying.

Five lines classify an image, with the core dependencies alone:

    from pipeline.weights import open_classifier

    classifier = open_classifier("runs/resnet50-3f9c1a")
    for name, probability in classifier("cat.jpg").top(5):
        print(f"{probability:6.1%}  {name}")
"""

from pipeline.weights.classifier import Classifier, Prediction, open_classifier
from pipeline.weights.find import find_all, find_one
from pipeline.weights.pixels import evaluation_pixels
from pipeline.weights.stored import StoredCheckpoint, build_network, open_stored

__all__ = [
    "Classifier",
    "Prediction",
    "StoredCheckpoint",
    "build_network",
    "evaluation_pixels",
    "find_all",
    "find_one",
    "open_classifier",
    "open_stored",
]
