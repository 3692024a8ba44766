"""`python -m lps_hf.cli`, for where the command is not on the path."""

import sys

from .main import main

sys.exit(main())
