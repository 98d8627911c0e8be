"""The command line and everything that wires rooms together; jax and ray only inside functions."""
