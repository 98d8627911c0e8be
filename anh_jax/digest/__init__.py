"""Digest a pytree so that every sharding gives the same root and every tile can be opened.

The bytes are laid out in `attest.digest_tree`; this package reads arrays and hashes them.
"""
