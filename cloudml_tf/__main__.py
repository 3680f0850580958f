"""`python -m cloudml_tf` is the console script `cloudml`."""

import sys

from cloudml_tf.cli import main

sys.exit(main())
