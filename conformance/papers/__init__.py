"""What papers say: the defaults that they give and the values that they print, held against rule and golden."""

from xopt.conformance.papers.check import DEFAULTS, LAWS, PUBLISHED, check_papers

__all__ = ["DEFAULTS", "LAWS", "PUBLISHED", "check_papers"]
