"""A Grafana dashboard and Prometheus alert rules of the server's metrics: ``python -m tornado_logsrv.dashboards``."""

from importlib import resources

FILES = ("alerts.yml", "grafana.json")


def read(name: str) -> str:
    """The text of one of FILES."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
