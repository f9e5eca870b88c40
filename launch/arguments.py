"""Kinds of arguments that several programs take."""

import argparse


def count(text: str) -> int:
    """Return a whole number, at least 1; argparse tells of anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)
