"""``python scripts/search.py …`` is ``sb3-vgs-ppo search …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
