"""`python -m mdnc.cli`, for where the script is not on the path."""

import sys

from mdnc.cli import main

sys.exit(main())
