"""Parts of the interpreter of stored programs; its door is `anh_jax.program.interpret`."""
