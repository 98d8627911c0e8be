"""Signed records, the log they go to, and the client that checks them.

Standard library and PyNaCl only; knows neither JAX nor Ray. `canonical`, `envelope`, `keys` and
`statements` say what a record is; `step_file` is where a host keeps its own; `merkle`, `note` and
their neighbours are the log's forms; `client` is what a relying party runs.
"""
