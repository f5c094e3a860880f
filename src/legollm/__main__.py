"""`python -m legollm` is the program `legollm`."""

import sys

from legollm.cli import main

sys.exit(main())
