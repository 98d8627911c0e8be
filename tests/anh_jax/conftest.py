"""Eight virtual devices for every test of this room; set before any of them asks for devices."""

import jax

if jax.config.jax_num_cpu_devices < 8:
    jax.config.update("jax_num_cpu_devices", 8)
