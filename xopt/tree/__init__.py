"""Helpers on trees of arrays of every library, which keep dtypes: clips, norms, groups, sums, averages, leaves that come and go."""

from xopt.tree.clipping import Clipped, clip, clip_by_global_norm, clip_by_norm
from xopt.tree.grouping import groups
from xopt.tree.leaves import add, drop
from xopt.tree.norms import global_norm
from xopt.tree.sums import accumulate, average, cast, scale

__all__ = [
    "Clipped",
    "accumulate",
    "add",
    "average",
    "cast",
    "clip",
    "clip_by_global_norm",
    "clip_by_norm",
    "drop",
    "global_norm",
    "groups",
    "scale",
]
