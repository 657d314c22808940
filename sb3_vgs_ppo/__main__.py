"""``python -m sb3_vgs_ppo`` is the console script."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
