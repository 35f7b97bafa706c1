"""``python -m integration.vm``: see tiers.py."""

import sys

from integration.vm.tiers import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
