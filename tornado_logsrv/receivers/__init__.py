"""The write side: one module a protocol, and its line in the table of routes."""

from .jobs import JobHandler

ROUTES = [
    ("/add-job", JobHandler),
]
