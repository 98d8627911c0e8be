"""Training: mesh, state, optimizer, loop."""
