"""`python -m cloudml_tf.train CONFIG` is the same as `cloudml train CONFIG`."""

import sys

from cloudml_tf.commands.main import main

sys.exit(main(["train", *sys.argv[1:]]))
