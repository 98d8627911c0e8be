"""Claim: digesting on the host runs at about the speed of the hash it is made of.

Baselines, in the same run: `hashlib.sha256` over one buffer, and `blake3` over one buffer and one
thread. Other tile sizes are timed to show what the format's 4 KiB cost; the opening's size is
what they would do to the file that proves one tile.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from blake3 import blake3
from reporting import Report, Spread, parser, say

import anh_jax.digest.layout as layout
import anh_jax.digest.tree as tree
import attest.digest_tree as digest_tree
from anh_jax.digest.host import tree_digest
from anh_jax.digest.opening import open_tile

CLAIM = "host digest in GB per CPU second, over one-buffer hashes; opening size by tile size"
_FORMAT_KIB = digest_tree.TILE_BYTES // 1024
