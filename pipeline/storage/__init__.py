"""Bytes of samples: where the files of a dataset are, how they are read, copied and checked."""
