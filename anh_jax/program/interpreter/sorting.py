"""Sorting."""

from collections.abc import Mapping

from anh_jax.program.interpreter.scope import Rule

RULES: Mapping[str, Rule] = {}
