"""`python -m cloudml_tf` is the same as the console script `cloudml`."""

import sys

from cloudml_tf.commands.main import main

sys.exit(main())
