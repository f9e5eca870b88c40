"""The bytes of a dataset: how files are read, checked, prefetched and copied.

reader reads samples and checks their digests, through the descriptors of open_files; window_reader
prefetches windows into the page cache; files compares files with the index; staging gives each node
its own copy, made by copying; errors reports images that cannot be used.
"""
