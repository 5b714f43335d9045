"""`python -m recu`."""

import sys

from recu.cli.main import main

sys.exit(main())
