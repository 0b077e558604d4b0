"""Trees of arrays, of every library: helpers around a step."""

from xopt.tree.leaves import add as add
from xopt.tree.leaves import drop as drop
