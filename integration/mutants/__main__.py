"""``python -m integration.mutants``: see run.py."""

import sys

from integration.mutants.run import main

sys.exit(main())
