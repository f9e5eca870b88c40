"""What on a cluster, or on this machine, will cost work or time.

`facts` finds the facts; the rules for clusters, for places on disk and for machines are pure
functions of them, each of which makes one finding, or none where it has nothing to say.
"""
