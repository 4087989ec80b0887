"""The log server beside others: what one core takes, each server alone on it, the load from the other cores.

install     the other servers' packages, in a cache directory of their own
processes   one server, ours or another, while it is measured
load        requests, and how they went
rounds      who is measured how often, in turns
table       rows of what was found
"""

from .table import measure

__all__ = ["measure"]
