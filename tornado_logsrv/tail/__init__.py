"""``python -m tornado_logsrv.tail``: search a server, and follow it, from a shell. Standard library only."""
