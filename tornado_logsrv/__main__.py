"""``python -m tornado_logsrv`` runs the server."""

import sys

from .server import main

sys.exit(main())
