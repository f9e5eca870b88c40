"""Problems of a cluster, or of this machine, that will cost work or time.

`facts` collects the facts. The rules for clusters, for places on disk and for machines are pure
functions of them; each returns one finding, or None.
"""
