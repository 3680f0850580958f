"""`python -m cloudml_tf` is the console script `cloudml`."""

import sys

from cloudml_tf.commands.main import main

sys.exit(main())
