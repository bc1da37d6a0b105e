"""The boot lab: images, cold volumes, machines, rounds, and what is made of them."""
