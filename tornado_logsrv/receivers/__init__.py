"""The write side: one module a protocol, and its lines in the table of routes."""

from .jobs import Job, JobHandler, Jobs, JobsHandler

ROUTES = [
    ("/add-job", JobHandler),
    ("/add-jobs", JobsHandler),
]

#: Hot routes, and the collectors with which the fast lane answers plain requests of theirs.
LANES = {
    "/add-job": Job,
    "/add-jobs": Jobs,
}
