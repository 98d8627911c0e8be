"""Audits: re-execute steps of a run from its contract, and say what was found in a receipt."""
