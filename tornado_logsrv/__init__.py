"""A log server for people who run MongoDB: HTTP in, MongoDB out, and nothing lost on the way."""

__version__ = "0.1.0"
